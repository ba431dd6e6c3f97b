"""The page in a browser, against the Hub on loopback: the whole way, and what one visitor may not do to another."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote

import matplotlib
import numpy as np
import pytest
from hub_fixtures import CANARY
from hub_server import Hub, hub
from safetensors.numpy import save

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures"
SPACE = ROOT / "spaces" / "nezha-convert"
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
PATIENCE = 120_000
"""Milliseconds until a test gives up: CI's machines are slow, and a test that passes does not wait."""

gradio = pytest.importorskip("gradio", reason="the extra space is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"there is none of {', '.join(NAMES)} here")

EVIL = "<img src=x onerror=window.stolen=1>${window.stolen=1}{{7*7}}"
"""A tensor's name that would be a script, a template or another."""

SERVE = """
from app import serve
from page.limits import Limits
serve(Limits(free_bytes=1_000_000, sweep_seconds=3600))
"""


def files(fixture: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (FIXTURES / fixture).iterdir() if path.suffix != ".npz"}


@dataclass
class Page:
    """The server of the page and its Hub."""

    url: str
    hub: Hub
    folder: Path
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def root(self) -> Path:
        (root,) = self.folder.glob("nezha-page-*")
        return root

    def visitors(self) -> list[Path]:
        return sorted((self.root / "private").iterdir())

    def jobs(self) -> list[int]:
        """The processes that the server has started and that have not ended."""
        children = subprocess.run(["ps", "-o", "pid=,stat=", "--ppid", str(self.process.pid)], capture_output=True)
        rows = [line.split() for line in children.stdout.decode().splitlines()]
        return [int(pid) for pid, state in rows if not state.startswith("Z")]


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("page")
    port, log = free_port(), folder / "log"
    with hub(CANARY) as server, log.open("wb") as output:
        server.create("owner/nezha-tiny", files("huawei-tf-pretraining"))
        evil = {"config.json": b"{}", "model.safetensors": save({EVIL: np.zeros(2, np.float32)})}
        server.create("owner/evil", evil)
        environment = {
            **{name: value for name, value in os.environ.items() if name != "SYSTEM"},
            "HF_ENDPOINT": server.endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": "hf_theSecretOfTheSpace",  # which no visitor's job may use
            "GRADIO_SERVER_PORT": str(port),
            "MPLCONFIGDIR": matplotlib.get_configdir(),  # where this user's list of fonts may be
            "TMPDIR": str(folder),
            "PYTHONPATH": str(ROOT),
        }
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE], cwd=SPACE, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        page = Page(f"http://127.0.0.1:{port}", server, folder, log, process)
        try:
            wait_for(lambda: answers(page.url), log.read_text)
            yield page
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    assert not [*folder.glob("nezha-page-*")], "a server that ends deletes its visitors' folders"


def wait_for(condition: Callable[[], object], why: Callable[[], str] = lambda: "") -> None:
    end = time.monotonic() + PATIENCE / 1000
    while not condition():
        assert time.monotonic() < end, why()
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return bool(urllib.request.urlopen(url).status == 200)
    except URLError:
        return False


def status_of(url: str) -> int:
    try:
        return int(urllib.request.urlopen(url).status)
    except HTTPError as error:
        return error.code


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(served, chromium):
    """Open the page as a visitor of one's own. No visit asks another server for anything, or logs an error."""
    contexts, strange = [], []

    def open_page(language: str = "en-GB", **settings: object):
        context = chromium.new_context(locale=language, reduced_motion="reduce", **settings)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("request", lambda request: strange.append(request.url) if not is_own(request.url) else None)
        page.on("pageerror", lambda error: strange.append(str(error)))
        page.goto(served.url)
        page.locator("#nc-limits").wait_for()
        return page

    def is_own(url: str) -> bool:
        return url.startswith((served.url, "data:", "blob:", "about:"))

    yield open_page
    for context in contexts:
        context.close()
    assert strange == []


def look_at(page, address: str) -> None:
    page.locator("#address :is(input, textarea)").fill(address)
    page.locator("#look").click()


def test_a_visitor_goes_the_whole_way_and_the_token_appears_nowhere(served, visit, tmp_path):
    page, answered = visit(), []
    page.on("response", lambda response: answered.append(response))
    look_at(page, "owner/nezha-tiny")
    page.locator("#facts table").first.wait_for()
    facts = page.locator("#facts").inner_text()
    assert (
        "Huawei's NEZHA-TensorFlow" in facts and "hf://owner/nezha-tiny@" in facts and "45 used, 94 left out" in facts
    )
    assert "gelu_pytorch_tanh" in facts and "Nothing is assumed." in facts
    page.locator("#convert").click()
    page.locator("#outcome .nc-good").wait_for()
    assert "nezha-tiny passed: largest error" in page.locator("#outcome").inner_text()

    frame = page.locator("iframe.nc-parity")
    assert frame.get_attribute("sandbox") == "", "no script, no form, no origin"
    assert "nezha-tiny passed" in page.frame_locator("iframe.nc-parity").locator("h1").inner_text()
    with page.expect_download() as waiting:
        page.locator("#zip").click()
    archive = zipfile.ZipFile(io.BytesIO(Path(waiting.value.path()).read_bytes()))
    record = json.loads(archive.read("nezha-tiny/conversion.json"))
    assert record["parity"]["passed"] and record["source"].startswith("hf://owner/nezha-tiny@")

    page.locator("#license input").fill("apache-2.0")
    page.keyboard.press("Enter")
    assert page.locator("#token input").get_attribute("type") == "password"
    page.locator("#token input").fill(CANARY)
    page.locator("#propose").click()
    page.locator("#proposed .nc-good").wait_for()
    assert page.locator("#proposed a").get_attribute("href") == f"{served.hub.endpoint}/owner/nezha-tiny/discussions/1"
    proposed = served.hub.repositories["owner/nezha-tiny"].history("refs/pr/1")[0].files
    assert proposed["model.safetensors"] == archive.read("nezha-tiny/model.safetensors")
    assert "model.safetensors" not in served.hub.repositories["owner/nezha-tiny"].history("main")[0].files
    assert page.locator("#token input").input_value() == ""

    # A wrong token is refused in words. It is as secret as a right one.
    wrong = CANARY + "Wrong"
    page.locator("#repo :is(input, textarea)").fill("owner/evil")
    page.locator("#token input").fill(wrong)
    page.locator("#propose").click()
    page.locator("#nc-said .nc-bad").wait_for()
    assert "does not accept the token" in page.locator("#nc-said").inner_text()

    kept = [path for path in served.folder.rglob("*") if path.is_file()]
    assert len(kept) > 20 and served.log in kept
    assert [path for path in kept if CANARY.encode() in path.read_bytes()] == []
    assert not any(CANARY in request for request in served.hub.requests)
    assert CANARY not in page.content()
    bodies = [response.url + json.dumps(response.headers) for response in answered]
    bodies += [response.text() for response in answered if is_text(response)]
    assert len(bodies) > 10 and not any(CANARY in body for body in bodies)
    assert "Traceback" not in served.log.read_text()


def is_text(response) -> bool:
    """Whether it has a body that ended: a stream of events of a page that is open has not."""
    kind = response.headers.get("content-type", "")
    return response.ok and "event-stream" not in kind and ("json" in kind or "html" in kind)


def test_a_question_is_answered_by_choosing_in_chinese_on_a_narrow_dark_screen(served, visit):
    page = visit("zh-CN", viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.locator("#upload input[type=file]").set_input_files(
        [path for path in (FIXTURES / "huawei-tf-classifier").iterdir() if path.suffix != ".npz"]
    )
    page.get_by_text("已上传").wait_for()
    page.locator("#look").click()
    page.locator("#question").wait_for()
    assert not page.locator("#convert").is_visible()
    assert "这一点需要你来决定" in page.locator("#facts").inner_text()
    page.get_by_text("token-classification: 逐字标注").click()
    page.locator("#answer").click()
    page.locator("#convert").wait_for()
    facts = page.locator("#facts").inner_text()
    assert "token-classification" in facts and "你的选择" not in facts and "源文件没有说明" in facts
    assert page.locator("#question").is_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", background)[:3])) < 60, background
    words = page.locator("#nc-top").inner_text() + page.locator("#look").inner_text() + page.title()
    assert "让 NEZHA 在新版 transformers 中可用" in words and "看看是什么" in words


def test_a_refusal_says_what_helps_and_names_from_a_checkpoint_are_text(served, visit):
    page = visit()
    look_at(page, "owner/evil")
    page.locator("#facts .nc-bad").wait_for()
    said = page.locator("#facts").inner_text()
    assert "not a NEZHA checkpoint that is known here" in said and EVIL in said and "What helps" in said
    assert page.evaluate("window.stolen") is None
    assert not page.locator("#convert").is_visible()
    look_at(page, "owner/nothing")
    page.locator("#nc-said .nc-bad").wait_for()
    assert "the repository does not exist" in page.locator("#nc-said").inner_text()
    assert str(served.folder) not in page.content()
    look_at(page, " ")
    page.get_by_text("Name an address on the Hub, or upload files.").wait_for()


def test_a_cancelled_run_stops_its_work_and_leaves_nothing(served, visit):
    before = served.visitors()
    page = visit()
    look_at(page, "owner/nezha-tiny")
    page.locator("#convert").click()
    wait_for(served.jobs)
    (visitor,) = [path for path in served.visitors() if path not in before]
    page.locator("#cancel").click()
    page.get_by_text("Cancelled. What was begun is deleted.").wait_for()
    assert served.jobs() == []
    assert sorted(path.name for path in visitor.iterdir()) == ["hub"], "what was fetched, for another try"
    assert not (served.root / "served" / visitor.name).exists()
    page.locator("#clear").click()
    wait_for(lambda: not visitor.exists())


def test_two_visitors_are_apart_and_one_who_has_gone_leaves_nothing(served, visit):
    before = served.visitors()
    one, other = visit(), visit()
    one.locator("#upload input[type=file]").set_input_files(FIXTURES / "huawei-tf-pretraining" / "bert_config.json")
    one.get_by_text("Uploaded, ").wait_for()
    (visitor,) = [path for path in served.visitors() if path not in before]
    given = visitor / "given" / "bert_config.json"
    assert given.is_file() and re.fullmatch(r"[0-9a-f]{32}", visitor.name)

    # The other one does not even see it by knowing where it lies.
    guesses = [given, visitor, served.root, served.root / "served", served.root / "served" / visitor.name, served.log]
    guesses += [served.root / "served" / ".." / "private" / visitor.name / "given" / given.name]
    guesses += [SPACE / "app.py", Path("app.py"), Path("/etc/passwd"), Path("/proc/self/environ")]
    for guess in guesses:
        for route in ("gradio_api/file=", "file=", "gradio_api/file/"):
            fetched = other.request.get(f"{served.url}/{route}{quote(str(guess))}")
            assert fetched.status in (403, 404), f"{route}{guess}: {fetched.status}"
    assert "bert_config" not in other.content()
    assert [path for path in (served.root / "served").rglob("*") if path.name == given.name] == []

    # Nor does it by the name of the other's session.
    other.locator("#look").click()
    other.get_by_text("Name an address on the Hub, or upload files.").wait_for()

    one.close()
    wait_for(lambda: not visitor.exists(), lambda: "the visitor has gone, and the folder is still there")


def test_an_upload_over_the_limit_is_refused_before_it_is_read(served):
    request = urllib.request.Request(f"{served.url}/gradio_api/upload", data=b"x", method="POST")
    request.add_header("Content-Length", str(10**12))
    with pytest.raises(HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 413
