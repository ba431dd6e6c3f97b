"""Interruptions and refusals: each is one message with the next step, without the token."""

from __future__ import annotations

import hashlib

import pytest
from hub_fixtures import CANARY, NAME, PUSH, TF, commits, process, pushed

from nezha_convert import HubError, convert, push

# Interruptions


def test_a_connection_cut_in_the_middle_of_a_large_file_is_taken_up_again(run, server, folder):
    server.fail("PUT /lfs/", 0, times=1)
    assert run("push", folder, NAME, *PUSH).code == 0
    assert commits(server) == 1
    assert pushed(server)["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_an_interrupted_push_leaves_the_repository_as_it_was_and_is_completed_by_the_next(run, server, tmp_path):
    convert(TF, tmp_path / "sharded", max_shard_bytes=50_000)
    shards = sorted((tmp_path / "sharded").glob("*.safetensors"))
    assert len(shards) == 2
    second = hashlib.sha256(shards[1].read_bytes()).hexdigest()
    server.fail(f"PUT /lfs/{second}", 0)
    broken = run("push", tmp_path / "sharded", NAME, *PUSH, "--force")
    assert broken.code == 6 and "broke off" in broken.err and "run the same command again" in broken.err
    assert commits(server) == 0

    server.failures.clear()
    server.requests.clear()
    assert run("push", tmp_path / "sharded", NAME, *PUSH, "--force").code == 0
    assert commits(server) == 1
    assert server.count(f"PUT /lfs/{second}") == server.count("PUT ") == 1  # the first one is not sent again
    assert pushed(server)[shards[0].name] == shards[0].read_bytes()


# Refusals: each one message, with the next step


@pytest.mark.parametrize(
    ("pattern", "status", "words", "headers"),
    [
        ("POST .*/commit/", 403, ("token does not allow this", "--create-pr"), {}),
        ("POST .*/preupload/", 404, ("no such repository", "Check OWNER/NAME"), {}),
        ("POST .*/commit/", 409, ("another change is under way", "again in a minute"), {}),
        ("POST .*/commit/", 412, ("changed by someone else", "Look at what changed"), {}),
        ("POST .*/commit/", 429, ("rate limit", "Wait 30 seconds"), {"Retry-After": "30"}),
        ("POST .*/objects/batch", 500, ("fault of its own", "again later"), {}),
        ("POST .*/commit/", 503, ("fault of its own", "again later"), {}),
        ("POST .*/commit/", 418, ("the Hub refuses it", "HTTP 418"), {}),
    ],
)
def test_a_refusal_is_6_and_leaves_no_commit(run, server, folder, pattern, status, words, headers):
    server.fail(pattern, status, message=f"no, {CANARY}", **headers)
    result = run("push", folder, NAME, *PUSH)
    assert result.code == 6 and result.out == "" and result.err.count("error: ") == 1
    for word in (*words, NAME, f"HTTP {status}", "no, (token)"):
        assert word in result.err
    assert commits(server) == 0


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_a_token_that_is_missing_or_wrong_is_6_and_creates_nothing(run, server, folder, token):
    result = run("push", folder, NAME, *PUSH, token=token)
    assert result.code == 6 and "hf auth login" in result.err
    assert not server.repositories and not server.large


def test_a_server_that_is_not_there_is_6(run, folder):
    result = run("push", folder, NAME, *PUSH, endpoint="http://127.0.0.1:9")
    assert result.code == 6 and "cannot be reached" in result.err and "--endpoint" in result.err


def test_a_branch_that_is_not_there_is_6(run, server, folder):
    server.create(NAME)
    result = run("push", folder, NAME, *PUSH, "--revision", "nope")
    assert result.code == 6 and "no such repository, revision" in result.err


@pytest.mark.parametrize(("status", "debug"), [(200, "1"), (401, ""), (403, "1"), (500, ""), (0, "1")])
def test_the_token_is_in_no_output_and_in_no_file(server, folder, tmp_path, status, debug):
    """Also where the server sends it back, and in tracebacks."""
    for method in ("POST .*/commit/", "POST .*/validate-yaml"):
        if status != 200:
            server.fail(method, status, message=f"your token {CANARY} is not good", **{"X-Request-Id": CANARY})
    command = ("-m", "nezha_convert", "push", folder, NAME, *PUSH)
    done = process(server, *command, home=tmp_path / "home", HF_TOKEN=CANARY, NEZHA_DEBUG=debug)
    assert (done.returncode == 0) == (status == 200)
    assert ("Traceback" in done.stderr) == (debug == "1" and status != 200)
    assert CANARY not in done.stdout + done.stderr
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path
    for repository in server.repositories.values():
        assert all(CANARY.encode() not in data for c in repository.commits.values() for data in c.files.values())


def test_an_error_s_text_and_all_that_led_to_it_are_without_the_token(server, folder):
    import traceback

    server.fail("POST .*/commit/", 403, message=f"no, {CANARY}")
    with pytest.raises(HubError) as caught:
        push(folder, NAME, license="mit", token=CANARY, endpoint=server.endpoint)
    text = "".join(traceback.format_exception(caught.value))
    assert "create_commit" in text and "(token)" in text and CANARY not in text
