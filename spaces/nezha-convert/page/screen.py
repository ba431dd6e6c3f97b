"""What a visitor sees, from top to bottom, and what each button does. Only this file knows gradio."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from .jobs import Event, Job
from .questions import Way, arguments, ways_of
from .uploads import UploadLimit
from .views import View, size
from .visitors import Full, Visitor, Visitors
from .words import LANGUAGES, WORDS, language_of, say

STYLE = Path(__file__).with_name("style.css")

HEADS = tuple(key.removeprefix("head.") for key in WORDS if key.startswith("head."))
DTYPES = ("float32", "float16", "bfloat16")
CONFIGS = (
    *("huawei/nezha-cn-base", "huawei/nezha-cn-large", "huawei/nezha-base-wwm", "huawei/nezha-large-wwm"),
    *("huawei/nezha-en-base", "huawei/nezha-base-vocab-100503"),
)
LICENSES = ("apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "gpl-3.0", "other", "unknown")

Updates = dict[Any, Any]
"""Components and what they show from now on."""

Work = Generator[Updates, None, Event]
"""Shows progress and returns the outcome."""


class Screen:
    """The page.

    Args:
        visitors: who is here.
        on_space: whether it runs as a Space, where visitors log in by OAuth; elsewhere they enter a token.
    """

    def __init__(self, visitors: Visitors, on_space: bool) -> None:
        self._visitors, self._limits, self._on_space = visitors, visitors.limits, on_space
        columns = [{key: words[place] for key, words in WORDS.items()} for place in range(len(LANGUAGES))]
        chinese = dict.fromkeys(("zh", "zh-CN", "zh-TW", "zh-HK", "zh-SG"), columns[1])
        self._words = gr.I18n(en=columns[0], **chinese)
        limits = self._limits
        with gr.Blocks(
            title="nezha-convert", analytics_enabled=False, delete_cache=(limits.sweep_seconds, limits.kept_seconds)
        ) as self.blocks:
            self._headings: dict[Any, str] = {}
            self.top = gr.HTML(elem_id="nc-top", elem_classes="nc-html")
            self._source_part()
            self._found_part()
            self._convert_part()
            self._hub_part()
            with gr.Row(elem_id="nc-status"):
                self.status = gr.HTML(elem_id="nc-said", elem_classes="nc-html")
                self.cancel = gr.Button(self._words("cancel"), variant="stop", visible=False, scale=0, elem_id="cancel")
            self._wire()

    def launch(self) -> None:
        """Serve the page until the process ends."""
        guard = Middleware(UploadLimit, limits=self._limits, folder=self._visitors.uploads)
        font = ["system-ui", "-apple-system", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif"]
        mono = ["ui-monospace", "SFMono-Regular", "Menlo", "monospace"]
        self.blocks.queue(max_size=self._limits.waiting, default_concurrency_limit=None)
        self.blocks.launch(
            theme=gr.themes.Soft(font=font, font_mono=mono),  # the reader's own fonts: no request to another server
            css_paths=STYLE,
            i18n=self._words,
            max_file_size=self._limits.upload_bytes,
            app_kwargs={"middleware": [guard]},
            run_history=False,
            enable_monitoring=False,
            show_error=False,
            ssr_mode=False,
            footer_links=[],
            quiet=True,
        )

    # The parts of the page

    def _heading(self, key: str) -> None:
        self._headings[gr.HTML(elem_classes=["nc-html", "nc-heading"])] = key

    def _source_part(self) -> None:
        word = self._words
        if self._on_space:
            gr.LoginButton(size="sm")
        self._heading("step_source")
        with gr.Row():
            with gr.Column(min_width=280):
                self.address = gr.Textbox(
                    label=word("address"), placeholder="owner/name", max_lines=1, max_length=300, elem_id="address"
                )
                with gr.Accordion(word("private"), open=False, visible=not self._on_space):
                    self.source_token = self._token("source-token")
            with gr.Column(min_width=280):
                self.upload = gr.File(label=word("upload"), file_count="multiple", height=150, elem_id="upload")
                self.uploaded = gr.HTML(elem_classes="nc-html")
        with gr.Row():
            self.look = gr.Button(word("look"), variant="primary", elem_id="look")
            self.clear = gr.Button(word("clear"), elem_id="clear")

    def _token(self, name: str) -> gr.Textbox:
        return gr.Textbox(
            label=self._words("token"),
            info=self._words("token_hint"),
            type="password",
            max_lines=1,
            max_length=300,
            visible=not self._on_space,
            html_attributes=gr.InputHTMLAttributes(autocomplete="off"),
            elem_id=name,
        )

    def _found_part(self) -> None:
        word = self._words
        with gr.Column(visible=False) as self.found:
            self._heading("step_found")
            self.facts = gr.HTML(elem_id="facts", elem_classes="nc-html")
            with gr.Column(visible=False, elem_id="question") as self.question:
                self.choice = gr.Radio([], label=word("choose"), elem_id="choice")
                self.answer = gr.Button(word("answer"), variant="primary", elem_id="answer")
            with gr.Accordion(word("more"), open=False, elem_id="more"):
                self._headings[gr.HTML(elem_classes="nc-html")] = "more_hint"
                with gr.Row():
                    self.head = gr.Dropdown([("", "")], value="", label=word("set_head"), min_width=240, elem_id="head")
                    self.casing = gr.Dropdown([("", "")], value="", label=word("set_casing"), min_width=240)
                    self.dtype = gr.Dropdown([("", "")], value="", label=word("set_dtype"), min_width=240)
                    self.config = gr.Dropdown([("", "")], value="", label=word("set_config"), min_width=240)
                self.labels = gr.Textbox(label=word("set_labels"), lines=3, max_length=100_000, elem_id="labels")
                self.again = gr.Button(word("again"), elem_id="again")

    def _convert_part(self) -> None:
        word = self._words
        with gr.Column(visible=False) as self.converting:
            self._heading("step_convert")
            self.convert = gr.Button(word("convert"), variant="primary", elem_id="convert")
            with gr.Column(visible=False) as self.made:
                self.outcome = gr.HTML(elem_id="outcome", elem_classes="nc-html")
                with gr.Row():
                    self.zip = gr.DownloadButton(word("download"), variant="primary", elem_id="zip")  # type: ignore[arg-type]
                    self.page = gr.DownloadButton(word("download_page"), elem_id="page")  # type: ignore[arg-type]
                self.parity = gr.HTML(elem_id="parity", elem_classes="nc-html")

    def _hub_part(self) -> None:
        word = self._words
        with gr.Column(visible=False) as self.hub:
            self._heading("step_hub")
            self._headings[gr.HTML(elem_classes="nc-html")] = "hub_hint"
            with gr.Row():
                self.repository = gr.Textbox(
                    label=word("repository"), placeholder="owner/name", max_length=200, min_width=240, elem_id="repo"
                )
                self.license = gr.Dropdown(
                    LICENSES,
                    value=None,
                    label=word("license"),
                    info=word("license_hint"),
                    allow_custom_value=True,
                    min_width=240,
                    elem_id="license",
                )
            self.token = self._token("token")
            self.propose = gr.Button(word("propose"), variant="primary", elem_id="propose")
            self.proposed = gr.HTML(elem_id="proposed", elem_classes="nc-html")

    def _wire(self) -> None:
        """What each button does. No event has a name in an API, and no run is recorded."""
        quick: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
        work: dict[str, Any] = {
            "api_visibility": "private",
            "show_progress": "minimal",
            "show_progress_on": self.status,
            "concurrency_limit": self._limits.jobs,
            "concurrency_id": "jobs",
        }
        settings = [self.head, self.casing, self.dtype, self.config, self.labels]
        changing = [
            *(self.status, self.cancel, self.uploaded, self.address, self.found, self.facts, self.question),
            *(self.choice, self.converting, self.made, self.outcome, self.zip, self.page, self.parity, self.hub),
            *(self.repository, self.token, self.source_token, self.proposed, self.upload, *settings),
        ]
        told = [self.top, *self._headings, self.head, self.casing, self.dtype, self.config]
        login = self._with_login if self._on_space else self._with_token
        self.blocks.load(self._greet, None, told, **quick)
        self.blocks.unload(self._leave)
        self.upload.upload(self._take, self.upload, changing, **quick)
        self.cancel.click(self._stop, None, changing, **quick)
        self.clear.click(self._start_over, None, changing, **quick)
        gr.on(
            [self.look.click, self.address.submit],
            login(self._look),
            [self.address, self.source_token],
            changing,
            **work,
        )
        self.answer.click(self._answer, self.choice, changing, **work)
        self.again.click(self._again, settings, changing, **work)
        self.convert.click(self._convert, None, changing, **work)
        self.propose.click(login(self._propose), [self.repository, self.license, self.token], changing, **work)

    # What the buttons do

    def _greet(self, request: gr.Request) -> Updates:
        """Write what stands still in the browser's language."""
        language, limits = language_of(request.headers.get("accept-language")), self._limits
        view = View(language)
        numbers = {
            "upload": size(limits.upload_bytes),
            "download": size(limits.download_bytes),
            "minutes": limits.job_seconds // 60,
            "jobs": limits.jobs,
            "kept": limits.kept_seconds // 60,
        }
        title, intro, said = view.say("title"), view.say("intro"), view.say("limits", **numbers)
        top = f'<h1>{title}</h1><p>{intro}</p><p class="nc-small" id="nc-limits">{said}</p>'
        unset = (say(language, "by_source"), "")
        heads = [unset, *((f"{head}: {say(language, f'head.{head}')}", head) for head in HEADS)]
        casings = [unset, *((say(language, name), name) for name in ("lower", "cased"))]
        return {
            self.top: top,
            **{heading: view.say(key) for heading, key in self._headings.items()},
            self.head: gr.update(choices=heads, value=""),
            self.casing: gr.update(choices=casings, value=""),
            self.dtype: gr.update(choices=[unset, *((one, one) for one in DTYPES)], value=""),
            self.config: gr.update(choices=[unset, *((one, one) for one in CONFIGS)], value=""),
        }

    def _leave(self, request: gr.Request) -> None:
        self._visitors.leave(request.session_hash)

    def _take(self, paths: list[str], request: gr.Request) -> Updates:
        """Move what was uploaded into the private folder."""
        view = View(language_of(request.headers.get("accept-language")))
        try:
            visitor = self._visitors.of(request.session_hash)
            if visitor.lock.locked():
                return {self.status: view.note("busy", "bad"), self.upload: None}
            visitor.take(paths)
        except Full as full:
            return {self.status: view.note(full.word, "bad"), self.upload: None, self.uploaded: ""}
        return {self.status: "", self.upload: None, self.uploaded: view.files(visitor.files())}

    def _stop(self, request: gr.Request) -> Updates:
        self._visitors.of(request.session_hash).stop()
        return {self.cancel: gr.update(visible=False)}

    def _start_over(self, request: gr.Request) -> Updates:
        """Forget the visitor, files and all."""
        self._visitors.leave(request.session_hash)
        return {
            **dict.fromkeys((self.found, self.converting, self.hub, self.cancel), gr.update(visible=False)),
            **dict.fromkeys((self.status, self.uploaded, self.facts, self.outcome, self.parity, self.proposed), ""),
            **dict.fromkeys((self.address, self.labels, self.token, self.source_token, self.repository), ""),
            **dict.fromkeys((self.head, self.casing, self.dtype, self.config), ""),
            self.upload: None,
        }

    def _with_token(self, action: Callable[..., Iterator[Updates]]) -> Callable[..., Iterator[Updates]]:
        """`action`, whose last input is the token that the visitor has entered."""

        def of_two(first: str | None, token: str | None, request: gr.Request) -> Iterator[Updates]:
            yield from action(first or "", token or "", request)

        def of_three(
            first: str | None, second: str | None, token: str | None, request: gr.Request
        ) -> Iterator[Updates]:
            yield from action(first or "", second or "", token or "", request)

        return of_two if action == self._look else of_three

    def _with_login(self, action: Callable[..., Iterator[Updates]]) -> Callable[..., Iterator[Updates]]:
        """`action`, whose last input is the token of the visitor's login."""

        def of_two(
            first: str | None, _: str | None, login: gr.OAuthToken | None, request: gr.Request
        ) -> Iterator[Updates]:
            yield from action(first or "", login.token if login else "", request)

        def of_three(
            first: str | None, second: str | None, _: str | None, login: gr.OAuthToken | None, request: gr.Request
        ) -> Iterator[Updates]:
            yield from action(first or "", second or "", login.token if login else "", request)

        return of_two if action == self._look else of_three

    def _look(self, address: str, token: str, request: gr.Request) -> Iterator[Updates]:
        """Fetch the source, and say what it is."""
        address = address.strip()

        def work(visitor: Visitor, view: View) -> Iterator[Updates]:
            visitor.forget(source=True)
            if not address and not visitor.files():
                yield {self.status: view.note("no_source", "bad")}
                return
            order = {"address": address, "token": token.strip(), "given": str(visitor.given)}
            yield from self._looked(visitor, view, order)

        yield {self.source_token: "", **self._hide()}
        yield from self._for(request, work)

    def _answer(self, choice: str | None, request: gr.Request) -> Iterator[Updates]:
        """Look again with an answer to the question."""

        def work(visitor: Visitor, view: View) -> Iterator[Updates]:
            ways = ways_of(visitor.found and visitor.found["refusal"])
            if not choice or not choice.isdigit() or int(choice) >= len(ways):
                yield {self.status: view.note("no_answer", "bad")}
                return
            visitor.answers.append(ways[int(choice)])
            yield self._hide()
            yield from self._looked(visitor, view, self._again_order(visitor))

        yield from self._for(request, work)

    def _again(
        self, head: str, casing: str, dtype: str, config: str, labels: str | None, request: gr.Request
    ) -> Iterator[Updates]:
        """Look again with what the visitor says besides."""
        said = {
            "head": head,
            "dtype": dtype,
            "config": config,
            "labels": [line for line in (labels or "").splitlines() if line.strip()],
        }
        settings: dict[str, Any] = {name: value for name, value in said.items() if value}
        if casing:
            settings["lower_case"] = casing == "lower"

        def work(visitor: Visitor, view: View) -> Iterator[Updates]:
            visitor.settings = settings
            yield self._hide()
            yield from self._looked(visitor, view, self._again_order(visitor))

        yield from self._for(request, work)

    def _convert(self, request: gr.Request) -> Iterator[Updates]:
        """Convert and verify, and show the proof."""

        def work(visitor: Visitor, view: View) -> Iterator[Updates]:
            visitor.forget()
            yield dict.fromkeys((self.made, self.hub), gr.update(visible=False))
            order = self._again_order(visitor) | {"task": "convert", "served": str(visitor.served)}
            event = yield from self._job(visitor, view, order)
            if "result" not in event:
                visitor.forget()
                yield self._failed(view, event)
                return
            made = visitor.made = event["result"]
            address, at, _ = str(visitor.found and visitor.found["name"]).removeprefix("hf://").partition("@")
            yield {
                self.made: gr.update(visible=True),
                self.outcome: view.outcome(made),
                self.zip: gr.update(value=made["zip"]),
                self.page: gr.update(value=made["html"]),
                self.parity: view.parity(Path(made["html"]).read_text("utf-8")),
                self.hub: gr.update(visible=made["parity"]["passed"]),
                self.repository: address if at else "",
                self.proposed: "",
                self.status: "",
            }

        yield from self._for(request, work)

    def _propose(self, repository: str, license: str, token: str, request: gr.Request) -> Iterator[Updates]:
        """Open a pull request."""

        def work(visitor: Visitor, view: View) -> Iterator[Updates]:
            lacks = "no_token" if not token.strip() else "" if repository.strip() and license else "no_repository"
            if lacks or not visitor.made:
                yield {self.status: view.note(lacks or "not_ready", "bad")}
                return
            order = {"task": "propose", "folder": visitor.made["folder"], "repo_id": repository.strip()}
            event = yield from self._job(visitor, view, order | {"license": license, "token": token.strip()})
            if "result" in event:
                yield {self.proposed: view.proposed(event["result"]), self.status: ""}
            else:
                yield self._failed(view, event)

        yield {self.token: ""}
        yield from self._for(request, work)

    # What they have in common

    def _for(self, request: gr.Request, work: Callable[[Visitor, View], Iterator[Updates]]) -> Iterator[Updates]:
        """Do `work` for the visitor of the request, who has one job at a time."""
        language = language_of(request.headers.get("accept-language"))
        try:
            visitor = self._visitors.of(request.session_hash)
        except Full as full:
            yield {self.status: View(language).note(full.word, "bad")}
            return
        view = View(language, visitor.folder)
        if not visitor.lock.acquire(blocking=False):
            yield {self.status: view.note("busy", "bad")}
            return
        try:
            yield from work(visitor, view)
        finally:
            visitor.stop()
            visitor.lock.release()

    def _again_order(self, visitor: Visitor) -> dict[str, Any]:
        """An order about the source that is here already, with what the visitor has said of it."""
        options = visitor.settings | arguments(visitor.answers)
        found: Mapping[str, Any] = visitor.found or {}
        return {
            "source": found.get("source"),
            "name": found.get("name"),
            "options": options,
            "given": str(visitor.given),
        }

    def _looked(self, visitor: Visitor, view: View, order: Mapping[str, Any]) -> Iterator[Updates]:
        """Carry out an order to look, and show what was found or asked."""
        if not (order.get("source") or order.get("address") or visitor.files()):
            yield {self.status: view.note("not_ready", "bad")}
            return
        event = yield from self._job(visitor, view, {"options": {}, "task": "look", **order})
        if "result" not in event:
            visitor.forget(source=not order.get("source"))
            yield self._failed(view, event)
            return
        found = visitor.found = event["result"]
        ways: tuple[Way, ...] = ways_of(found["refusal"])
        yield {
            self.status: "",
            self.uploaded: view.files(visitor.files()),
            self.found: gr.update(visible=True),
            self.facts: view.found(found),
            self.question: gr.update(visible=bool(ways)),
            self.choice: gr.update(choices=view.answers(ways), value=None),
            self.converting: gr.update(visible=found["refusal"] is None),
        }

    def _job(self, visitor: Visitor, view: View, order: Mapping[str, Any]) -> Work:
        """Run a job and show how far it has come; the event that ended it is returned."""
        limits = self._limits
        bounds = {name: getattr(limits, name) for name in ("download_bytes", "memory_bytes", "folder_bytes")}
        yield {self.status: view.progress(0, 0, "working"), self.cancel: gr.update(visible=True)}
        visitor.job = Job({**order, **bounds}, visitor.folder, self._visitors.shared, limits)
        how_far = (0, 0, "working")
        event: Event = {}
        for event in visitor.job.events():
            if "progress" in event:
                how_far = event["progress"]
            if "progress" in event or "alive" in event:
                yield {self.status: view.progress(*how_far, event.get("alive", 0))}
        yield {self.cancel: gr.update(visible=False)}
        return event

    def _failed(self, view: View, event: Event) -> Updates:
        """What is shown of a job that has no result."""
        if "refusal" in event:
            return {self.status: view.refusal({**event["refusal"], "ways": []})}
        return {self.status: view.note(event["ended"], "bad", minutes=self._limits.job_seconds // 60)}

    def _hide(self) -> Updates:
        """What follows from an earlier look is gone."""
        parts = (self.found, self.converting, self.made, self.hub, self.question)
        return dict.fromkeys(parts, gr.update(visible=False))
