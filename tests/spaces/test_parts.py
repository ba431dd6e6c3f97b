"""The parts of the page by themselves: words, questions, what is shown, visitors, jobs, and what each may import."""

from __future__ import annotations

import ast
import asyncio
import html.parser
import json
import re
import socket
import string
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from page import work
from page.jobs import Job
from page.limits import Limits
from page.questions import OF_INSPECT, REPEATED, arguments, ways_of
from page.uploads import UploadLimit
from page.views import View, size
from page.visitors import Full, Visitors
from page.words import LANGUAGES, WORDS, language_of, say

import nezha_convert
from nezha_convert.families.heads import HEADS
from nezha_convert.families.published import PUBLISHED

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "spaces" / "nezha-convert"
SOURCES = [SPACE / "app.py", *sorted((SPACE / "page").glob("*.py"))]
TIGHT = Limits(free_bytes=1000, sweep_seconds=3600)
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;"


# What each file may import


def imported(path: Path) -> set[str]:
    """What a file imports: modules by their whole names, and names of nezha_convert with it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


def test_the_page_calls_the_public_api_and_nothing_else_of_ours():
    for path in SOURCES:
        of_ours = {name for name in imported(path) if re.match(r"nezha(_convert)?\b", name)}
        assert of_ours == ({"nezha_convert"} if path.name == "work.py" else set()), path
    tree = ast.parse((SPACE / "page" / "work.py").read_text("utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "nezha_convert"
    }
    assert {"inspect", "convert", "verify", "write_html", "pull", "push"} <= used <= set(nezha_convert.__all__)


def test_gradio_is_known_to_the_screen_alone_and_every_other_import_is_python_s_own():
    for path in SOURCES:
        others = {name.partition(".")[0] for name in imported(path) if not name.startswith((".", "page"))}
        extra = {"screen.py": {"gradio", "starlette"}, "work.py": {"nezha_convert"}}.get(path.name, set())
        assert others - set(sys.stdlib_module_names) == extra, path


# Words


def test_every_word_is_there_in_both_languages_with_the_same_places():
    fields = [
        [name for _, name, _, _ in string.Formatter().parse(text) if name] for pair in WORDS.values() for text in pair
    ]
    for english, chinese in zip(fields[::2], fields[1::2], strict=True):
        assert sorted(english) == sorted(chinese)
    assert all(re.search("[\u4e00-\u9fff]", chinese) for _, chinese in WORDS.values())
    assert [key for key, (english, _) in WORDS.items() if re.search("[\u4e00-\u9fff]", english)] == []
    assert len(LANGUAGES) == 2


def test_every_word_that_the_code_says_is_in_the_table_and_every_word_of_the_table_is_said():
    text = "\n".join(path.read_text("utf-8") for path in SOURCES if path.name != "words.py")
    said = {*re.findall(r"[\"']([\w.-]+)[\"']", text)}
    families = ("head.", "answer.", "origin.")
    assert [key for key in WORDS if key not in said and not key.startswith(families)] == []
    for key in re.findall(r'(?:\.say|\.note|word|_heading|_words)\("([\w.]+)"', text):
        assert key in WORDS, key


def test_the_page_knows_every_head_config_and_kind_of_answer_of_the_api():
    screen = pytest.importorskip("page.screen", reason="the extra space is not installed")
    assert sorted(screen.HEADS) == sorted(HEADS)
    assert sorted(screen.CONFIGS) == sorted(PUBLISHED)
    asked = set()
    for path in (ROOT / "nezha_convert").rglob("*.py"):
        for line in re.findall(r"^.*\bways\b.*$", path.read_text("utf-8"), re.MULTILINE):
            asked |= set(re.findall(r'"--([a-z]+)"', line))
    assert {"head", "prefix", "part", "config", "rename", "average"} <= asked
    known = {key.removeprefix("answer.") for key in WORDS if key.startswith("answer.")} | {"head"}
    assert asked - known == set()


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"),
        ("fr-FR,zh-TW;q=0.5", "zh"),
        ("zh;q=0, en;q=0.1", "en"),
        ("zh;q=nonsense", "zh"),
        ("", "en"),
        (None, "en"),
    ],
)
def test_the_language_is_the_browser_s_first_that_the_page_speaks(accepted, language):
    assert language_of(accepted) == language


@given(st.text())
def test_no_header_of_a_browser_breaks_the_page(accepted):
    assert language_of(accepted) in LANGUAGES


# Questions


def test_answers_become_the_arguments_of_convert():
    ways = [
        ("--head", "masked-lm"),
        ("--rename", "a=classifier"),
        ("--rename", "b=c"),
        ("--average",),
        ("--head", "encoder"),
    ]
    assert arguments(ways) == {"head": "encoder", "rename": ["a=classifier", "b=c"], "average": True}
    assert arguments([("/somewhere/model.ckpt-2",)]) == {"source": "/somewhere/model.ckpt-2"}
    assert ways_of({"ways": [["--head", "encoder"]]}) == (("--head", "encoder"),)
    assert ways_of(None) == ways_of({}) == ()
    signature = nezha_convert.convert.__annotations__
    assert {*REPEATED, *OF_INSPECT} <= set(signature) and set(OF_INSPECT) <= set(nezha_convert.inspect.__annotations__)


# What is shown


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def evil(value):
    """`value` with every text in it a stranger's."""
    if isinstance(value, dict):
        return {key: item if key == "origin" else evil(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [evil(item) for item in value]
    return EVIL if isinstance(value, str) else value


def results() -> dict[str, object]:
    """What the jobs return, by the fixtures, as it comes through JSON."""
    source = ROOT / "fixtures" / "jaber-multilabel"
    plan = nezha_convert.convert(source, "out", dry_run=True).to_dict()
    found = {"name": "x", "inspection": nezha_convert.inspect(source).to_dict(), "plan": plan, "refusal": None}
    try:
        nezha_convert.convert(ROOT / "fixtures" / "huawei-tf-classifier", "out", dry_run=True)
    except nezha_convert.NezhaConvertError as error:
        refusal = error.to_dict()
    parity = {"passed": False, "verdict": "v", "failures": ["f"], "warnings": ["w"], "assumed": ["a"]}
    made = {"report": plan, "parity": parity, "loaded_by": "AutoModel", "folder": "out/x"}
    pushed = {"pull_request": "javascript:alert(1)"}
    return json.loads(json.dumps({"found": found, "refusal": refusal, "made": made, "pushed": pushed}, default=str))


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_that_a_stranger_wrote_is_markup(language, tmp_path):
    view, plain = View(language, tmp_path), results()
    bad = evil(plain)

    def shown(of: dict) -> list[str]:
        return [
            view.found(of["found"]),
            view.found({**of["found"], "refusal": of["refusal"], "plan": None}),
            view.refusal(of["refusal"]),
            view.outcome(of["made"]),
            view.proposed(of["pushed"]),
            view.progress(1, 2, f"converting {of['made']['folder']}"),
        ]

    for good_page, bad_page in zip(shown(plain), shown(bad), strict=True):
        good_tags, bad_tags = _Tags(), _Tags()
        good_tags.feed(good_page)
        bad_tags.feed(bad_page)
        assert set(bad_tags.tags) <= {*good_tags.tags} and {"script", "img"}.isdisjoint(bad_tags.tags)
        assert bad_tags.names <= {*good_tags.names} and "onerror" not in bad_tags.names
        assert "<script>" in bad_tags.text, "the text is shown, as text"
    assert "<a " not in view.proposed(plain["pushed"])
    assert '<a href="https://hub/x"' in view.proposed({"pull_request": "https://hub/x"})
    frame = _Tags()
    frame.feed(view.parity(f"<p>{EVIL}</p>"))
    assert frame.tags == ["iframe"] and {"sandbox", "srcdoc"} <= frame.names


def test_the_path_of_a_visitor_s_folder_is_not_shown(tmp_path):
    view = View("en", tmp_path)
    snapshot = tmp_path / "hub" / "hub" / "models--a--b" / "snapshots" / ("0" * 40) / "model.bin"
    refusal = {
        "ways": [],
        "problems": [],
        "hint": f"see {tmp_path}/out/x",
        "message": f"{tmp_path}/given/a.bin, {snapshot}",
    }
    assert str(tmp_path) not in view.refusal(refusal) and "a.bin, model.bin" in view.refusal(refusal)
    assert view.answers([(f"{tmp_path}/given/model.ckpt-2",)]) == [("the checkpoint model.ckpt-2", "0")]


@pytest.mark.parametrize(
    ("nbytes", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (1_234_000, "1.23 MB"), (5e12, "5e+03 GB")]
)
def test_sizes_are_for_people(nbytes, text):
    assert size(nbytes) == text


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("hf://owner/nezha.cn-base@0123", "nezha-cn-base"),
        ("pytorch_model.bin", "pytorch_model"),
        ("model.zip", "model"),
        ("权重.tar.gz", "nezha-converted"),
        ("../../etc/passwd", "passwd"),
        ("..", "nezha-converted"),
        ("a" * 300, "a" * 60),
    ],
)
def test_a_folder_gets_a_name_that_every_release_loads(name, folder):
    assert work._safe(name) == folder


@given(st.text())
def test_no_name_of_a_source_leads_out_of_the_folder(name):
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,60}", work._safe(name))


# Visitors


@pytest.fixture
def visitors(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = Visitors(TIGHT)
    yield found
    found.close()
    assert [*tmp_path.iterdir()] == []


def uploaded(visitors: Visitors, name: str, data: bytes = b"x") -> str:
    """A file as gradio leaves it."""
    path = visitors.uploads / "0123" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return str(path)


def test_an_upload_leaves_the_folder_that_is_served(visitors):
    visitor = visitors.of("session")
    visitor.take([uploaded(visitors, "model.bin"), uploaded(visitors, "vocab.txt")])
    assert [path.name for path in visitor.files()] == ["model.bin", "vocab.txt"]
    assert [*visitors.uploads.rglob("*")] == [] and visitors.uploads not in visitor.folder.parents
    assert visitors.root.stat().st_mode & 0o077 == 0


def test_too_much_of_a_visitor_is_refused_and_not_kept(visitors):
    visitor = visitors.of("session")
    visitor.limits = replace(TIGHT, upload_bytes=10)
    with pytest.raises(Full, match="too_many"):
        visitor.take([uploaded(visitors, "model.bin", b"x" * 11)])
    visitor.limits = replace(TIGHT, files=1)
    with pytest.raises(Full, match="too_many"):
        visitor.take([uploaded(visitors, "a"), uploaded(visitors, "b")])
    assert visitor.files() == []


def test_visitors_have_folders_that_nobody_can_guess_and_there_are_not_too_many(visitors):
    visitors.limits = replace(TIGHT, visitors=2)
    one, other = visitors.of("one"), visitors.of("two")
    assert one is visitors.of("one") and one.folder != other.folder
    assert all(re.fullmatch("[0-9a-f]{32}", visitor.folder.name) for visitor in (one, other))
    for session in ("three", "", None):
        with pytest.raises(Full, match="full"):
            visitors.of(session)
    visitors.leave("one")
    assert not one.folder.exists() and visitors.of("three").folder.is_dir()


def test_who_is_not_seen_for_long_is_deleted_and_so_is_an_upload_that_nobody_took(visitors):
    gone, here = visitors.of("gone"), visitors.of("here")
    for visitor in (gone, here):
        visitor.served.mkdir()
    path = Path(uploaded(visitors, "forgotten"))
    visitors.sweep()
    assert gone.folder.exists() and path.exists()
    gone.seen -= TIGHT.kept_seconds + 1
    visitors.limits = replace(TIGHT, kept_seconds=TIGHT.kept_seconds)
    visitors.sweep()
    assert not gone.folder.exists() and not gone.served.exists() and here.folder.exists()
    visitors.limits = replace(TIGHT, kept_seconds=0)
    here.seen += 1000
    time.sleep(0.01)
    visitors.sweep()
    assert not path.exists() and here.served.exists()


def test_an_upload_that_vanishes_during_a_sweep_does_not_end_the_sweeps(visitors, monkeypatch):
    path = Path(uploaded(visitors, "forgotten")).parent
    visitors.limits = replace(TIGHT, kept_seconds=0)
    time.sleep(0.01)
    listed = type(visitors.uploads).iterdir
    monkeypatch.setattr(type(visitors.uploads), "iterdir", lambda folder: [folder / "taken", *listed(folder)])
    visitors.sweep()
    monkeypatch.undo()
    assert not path.exists()


def test_the_folder_of_a_server_that_was_killed_is_deleted_by_the_next(tmp_path, visitors):
    dead = tmp_path / "nezha-page-999999999-abc"
    (dead / "private").mkdir(parents=True)
    Visitors(TIGHT).close()
    assert not dead.exists() and visitors.root.exists()


# Jobs


BOUNDS = {"memory_bytes": TIGHT.memory_bytes, "folder_bytes": TIGHT.folder_bytes}


def job(visitors: Visitors, order: dict) -> Job:
    return Job({**BOUNDS, **order}, visitors.of("session").folder, visitors.shared, TIGHT)


LOOK = {
    "task": "look",
    "address": "",
    "options": {},
    "source": str(ROOT / "fixtures/huawei-tf-pretraining"),
    "name": "x",
}


def test_a_job_tells_what_it_does_and_ends_with_its_result(visitors):
    *before, last = job(visitors, LOOK).events()
    assert {"progress": [0, 0, "looking"]} in before
    assert last["result"]["plan"]["head"] == "pretraining" and last["result"]["refusal"] is None


@pytest.fixture
def silent(monkeypatch):
    """A Hub that takes every question and answers none, so that a job lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield {**LOOK, "source": None, "address": "owner/name", "token": "", "download_bytes": 1}


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        (replace(TIGHT, job_seconds=-1), "too_long"),
        (replace(TIGHT, folder_bytes=-1), "too_large"),
        (replace(TIGHT, free_bytes=1 << 60), "too_large"),
    ],
)
def test_a_job_that_takes_too_much_is_killed(limits, word, visitors, silent):
    begun = Job({**silent, **BOUNDS}, visitors.of("session").folder, visitors.shared, limits)
    *_, last = begun.events()
    assert last == {"ended": word} and not begun.running


def test_a_job_gets_no_more_memory_than_it_may_have(visitors):
    *_, last = job(visitors, {**LOOK, "memory_bytes": 1 << 20}).events()
    assert last["ended"] in ("no_memory", "killed")


def test_a_fault_goes_to_the_log_without_the_token_and_not_to_the_visitor(visitors, capfd):
    token = "hf_thisIsASecret"
    *_, last = job(visitors, {**LOOK, "options": {"no_such": token}, "token": token}).events()
    assert last == {"ended": "fault"}
    log = capfd.readouterr().err
    assert "no_such" in log and token not in log


def test_a_job_sees_no_secret_of_the_server(visitors, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_ofTheSpace")
    running = job(visitors, {**LOOK, "task": "look"})
    environment = Path(f"/proc/{running._process.pid}/environ").read_bytes()
    command = Path(f"/proc/{running._process.pid}/cmdline").read_bytes()
    assert b"hf_ofTheSpace" not in environment + command
    running.stop("cancelled")
    assert [*running.events()][-1] == {"ended": "cancelled"} and not running.running


# Uploads


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/gradio_api/upload", {b"content-length": b"10"}, 200),
        ("/gradio_api/upload", {b"content-length": b"3000000000"}, 413),
        ("/gradio_api/upload/", {}, 413),
        ("/gradio_api/upload", {b"content-length": b"-1"}, 413),
        ("/gradio_api/queue/join", {}, 200),
    ],
)
def test_an_upload_is_refused_by_the_length_that_it_says(path, headers, status, tmp_path):
    assert asked(path, headers, TIGHT, tmp_path) == status


def test_an_upload_is_refused_where_the_disk_is_full(tmp_path):
    assert asked("/gradio_api/upload", {b"content-length": b"10"}, replace(TIGHT, free_bytes=1 << 60), tmp_path) == 507


def asked(path: str, headers: dict[bytes, bytes], limits: Limits, folder: Path) -> int:
    sent = []

    async def send(message) -> None:
        sent.append(message)

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200})

    scope = {"type": "http", "method": "POST", "path": path, "headers": [*headers.items()]}
    asyncio.run(UploadLimit(app, limits, folder)(scope, None, send))
    return sent[0]["status"]


# The Space


def test_the_space_s_header_is_what_the_hub_reads():
    text = (SPACE / "README.md").read_text("utf-8")
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["sdk"] == "gradio" and (SPACE / header["app_file"]).is_file()
    assert header["hf_oauth"] is True and set(header["hf_oauth_scopes"]) == {"read-repos", "write-discussions"}
    locked = re.search(r"^gradio==([\d.]+)", (ROOT / ".ci" / "requirements.lock").read_text("utf-8"), re.MULTILINE)
    assert locked and header["sdk_version"] == locked[1]
    assert len(header["short_description"]) <= 60  # the Hub's own limit


def test_the_space_installs_what_the_extra_names():
    lines = [line for line in (SPACE / "requirements.txt").read_text("utf-8").splitlines() if not line.startswith("-")]
    wanted = {one.name: one for one in map(Requirement, lines)}
    assert wanted["nezha-convert"].extras == {"html", "keras", "torch"} and wanted["gradio"].extras == {"oauth"}
    assert say("en", "title")
