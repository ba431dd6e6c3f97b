"""The page's words in English and in Chinese: one table, two columns."""

from __future__ import annotations

import re

LANGUAGES = ("en", "zh")

WORDS: dict[str, tuple[str, str]] = {
    # The frame
    "title": ("NEZHA for today's transformers", "让 NEZHA 在新版 transformers 中可用"),
    "intro": (
        "Turns a NEZHA checkpoint of Huawei's TensorFlow or PyTorch code, transformers 4, Paddle, Keras or MindSpore "
        "into a folder that today's transformers loads, and proves that both compute the same.",
        "把华为 TensorFlow、PyTorch 代码、transformers 4、Paddle、Keras 或 MindSpore 的 NEZHA 权重，"
        "转成新版 transformers 能直接加载的目录，并证明两者的计算结果相同。",
    ),
    "limits": (
        "Limits: {upload} to upload, {download} from the Hub, {minutes} minutes a job, {jobs} jobs at once; others "
        "wait. Your files lie in a folder of your own. They are deleted when you close this page, and at the latest "
        "after {kept} minutes without a click. Nothing in a checkpoint is run.",
        "限制：上传 {upload}，从 Hub 下载 {download}，每次任务 {minutes} 分钟，同时 {jobs} 个任务，其余排队。"
        "你的文件放在只属于你的目录里；关闭本页就会删除，{kept} 分钟没有操作也会删除。"
        "权重文件里的任何代码都不会被运行。",
    ),
    # 1: the source
    "step_source": ("1 · Your checkpoint", "1 · 你的权重"),
    "address": ("Address on the Hub", "Hub 上的地址"),
    "upload": (
        "Or files: weights, config, vocab.txt; or one .zip or .tar of a folder",
        "或者上传文件：权重、配置、vocab.txt；也可以是整个目录的一个 .zip 或 .tar",
    ),
    "uploaded": ("Uploaded, {size} together:", "已上传，共 {size}："),
    "private": ("A private or gated model?", "私有或需要授权的模型？"),
    "token": ("Your access token of the Hub", "你的 Hub 访问令牌"),
    "token_hint": (
        "Used once and forgotten. It is not stored, and appears in no log.",
        "只用一次，用完即忘；不保存，也不会出现在任何日志里。",
    ),
    "look": ("Look at it", "看看是什么"),
    "clear": ("Start over", "重新开始"),
    "cancel": ("Cancel", "取消"),
    # 2: what it is
    "step_found": ("2 · What it is", "2 · 它是什么"),
    "family": ("written by", "来自"),
    "format": ("format", "格式"),
    "head": ("model", "模型"),
    "sizes": ("sizes", "规模"),
    "tensors": ("tensors", "张量"),
    "tensors_said": (
        "{all} in all, {size}: {used} used, {dropped} left out, {kept} kept beside the model",
        "共 {all} 个，{size}：使用 {used} 个，略去 {dropped} 个，另存于模型旁 {kept} 个",
    ),
    "dropped": ("left out", "略去"),
    "kept": ("kept beside", "另存"),
    "decided": ("What was decided, and why", "作出的决定及原因"),
    "field": ("field", "字段"),
    "value": ("value", "取值"),
    "why": ("why", "原因"),
    "origin": ("said by", "依据"),
    "origin.asked": ("you", "你的选择"),
    "origin.file": ("a file", "文件"),
    "origin.tensors": ("the tensors", "张量"),
    "origin.default": ("the program", "原程序"),
    "assumed": ("What is assumed, because nothing in the source says it", "源文件没有说明、只能假定的"),
    "nothing_assumed": ("Nothing is assumed.", "没有任何假定。"),
    "english_reasons": ("", "决定、假定与出错信息保留英文原文，与命令行一致。"),
    "question": ("You have to decide this", "这一点需要你来决定"),
    "refused": ("It cannot be converted like this", "这样还不能转换"),
    "next": ("What helps", "怎么办"),
    "choose": ("Your answer", "你的回答"),
    "answer": ("Answer", "回答"),
    "answer.rename": ("read {value} as the classifier", "把 {value} 当作分类层"),
    "answer.prefix": ("the model whose names begin with {value}", "名字以 {value} 开头的那个模型"),
    "answer.part": ("the dictionary {value} of the file", "文件里的字典 {value}"),
    "answer.config": ("the config {value}", "配置 {value}"),
    "answer.average": ("the moving average of the weights", "权重的滑动平均"),
    "answer.drop": ("leave out {value}", "略去 {value}"),
    "answer.source": ("the checkpoint {value}", "权重 {value}"),
    "more": ("Say more about it", "补充说明"),
    "more_hint": (
        "Only where you know better than the files. Then look again.",
        "只在你比文件更清楚时填写，然后再看一次。",
    ),
    "again": ("Look again with this", "按此再看一次"),
    "set_head": ("What the model is for", "模型的用途"),
    "set_labels": ("Names of the classes, one a line", "类别名称，每行一个"),
    "set_casing": ("Capital letters", "大写字母"),
    "set_config": ("Sizes, where the config is lost", "配置丢失时的规模"),
    "set_dtype": ("Type of the numbers", "数值类型"),
    "by_source": ("as the source says", "按源文件"),
    "lower": ("make them small", "转为小写"),
    "cased": ("keep them", "保持原样"),
    "head.encoder": ("the encoder alone", "只要编码器"),
    "head.pretraining": ("masked words and the next sentence", "遮盖词与下一句"),
    "head.masked-lm": ("masked words: each word sees both sides", "遮盖词：每个词看得到两侧"),
    "head.causal-lm": ("goes on with a text, word by word", "逐词续写文本"),
    "head.prefix-lm": ("answers a question that it sees whole (UniLM)", "看到整个问题后生成回答（UniLM）"),
    "head.next-sentence-prediction": ("the next sentence", "下一句判断"),
    "head.sequence-classification": ("a class for a sentence or a pair", "句子或句对分类"),
    "head.multiple-choice": ("one of several answers", "多项选择"),
    "head.token-classification": ("a class for each token, such as names", "逐字标注，如实体识别"),
    "head.question-answering": ("finds the answer in a text", "在文章里找答案"),
    # 3: the conversion
    "step_convert": ("3 · Convert and verify", "3 · 转换并证明"),
    "convert": ("Convert and verify", "转换并证明"),
    "passed": ("Verified: both compute the same.", "已证明：两者的计算结果相同。"),
    "failed": ("Not proved: the outputs differ.", "未通过：输出不同。"),
    "problem": ("problem", "问题"),
    "warning": ("to know", "请注意"),
    "believed": ("assumed", "假定"),
    "files": ("Files", "文件"),
    "load": ("In Python, beside the folder:", "在该目录旁的 Python 中："),
    "download": ("Download the folder", "下载整个目录"),
    "download_page": ("Download the parity page", "下载证明页"),
    "parity": ("Parity, tensor by tensor", "逐个张量的证明"),
    # 4: the Hub
    "step_hub": ("4 · To the Hub", "4 · 发到 Hub"),
    "hub_hint": (
        "Opens a pull request with the converted folder. Its owner decides; nothing changes before.",
        "用转换好的目录提交一个 pull request。由仓库主人决定是否合并，在此之前什么都不会改变。",
    ),
    "repository": ("Repository", "仓库"),
    "license": ("License of the weights", "权重的许可证"),
    "license_hint": (
        "None is assumed. Say what holds for these weights, or: unknown",
        "不作任何假定。请填这份权重实际的许可证，不知道就填 unknown",
    ),
    "propose": ("Open a pull request", "提交 pull request"),
    "proposed": ("Opened:", "已提交："),
    "nothing_new": (
        "The repository has these files already; nothing was sent.",
        "仓库里已有这些文件，没有发送任何内容。",
    ),
    # What a job does, and how it ends
    "working": ("Working", "处理中"),
    "looking": ("Looking", "查看中"),
    "downloading": ("Downloading", "下载中"),
    "converting": ("Converting", "转换中"),
    "verifying": ("Verifying", "证明中"),
    "packing": ("Packing", "打包中"),
    "proposing": ("Sending", "发送中"),
    "on_disk": ("{size} on the disk", "磁盘上 {size}"),
    "cancelled": ("Cancelled. What was begun is deleted.", "已取消，已开始的内容已删除。"),
    "too_long": (
        "Stopped: it took longer than {minutes} minutes. On your own machine there is no limit.",
        "已停止：超过 {minutes} 分钟。在自己的机器上没有限制。",
    ),
    "too_large": (
        "Stopped: it needs more room than a visitor has here. On your own machine there is no limit.",
        "已停止：需要的空间超过了这里的限额。在自己的机器上没有限制。",
    ),
    "too_many": ("These are too many files, or too large together; none was kept.", "文件太多或总共太大，均未保留。"),
    "no_memory": (
        "Stopped: it needs more memory than there is here. Run it on your own machine.",
        "已停止：这里的内存不够。请在自己的机器上运行。",
    ),
    "killed": (
        "Stopped by the machine, perhaps for lack of memory. Try again, or run it on your own machine.",
        "被系统终止，可能是内存不足。请重试，或在自己的机器上运行。",
    ),
    "fault": ("A fault of this page, which is in its log. Please report it.", "本页出错，已记入日志，欢迎反馈。"),
    "busy": ("Another job of yours is running. Cancel it first.", "你还有一个任务在运行，请先取消。"),
    "full": (
        "There are too many visitors at the moment. Please come back in a few minutes.",
        "现在访问的人太多，请过几分钟再来。",
    ),
    "no_source": ("Name an address on the Hub, or upload files.", "请填写 Hub 上的地址，或上传文件。"),
    "no_token": ("Log in first, or enter your token.", "请先登录，或填写令牌。"),
    "no_repository": ("Name the repository and the license.", "请填写仓库和许可证。"),
    "not_ready": ("Look at a checkpoint first.", "请先查看一个权重。"),
    "no_answer": ("Choose an answer.", "请选择一个回答。"),
}


def language_of(accepted: str | None) -> str:
    """The language of the page for a browser's ``Accept-Language``: the first of it that the page speaks, or English.

    Example:
        >>> language_of("de, zh-CN;q=0.9, en;q=0.8"), language_of("en-GB, zh;q=0.1"), language_of(None)
        ('zh', 'en', 'en')
    """
    weighed = []
    for place, part in enumerate((accepted or "").lower().split(",")):
        name, _, weight = part.strip().partition(";q=")
        quality = float(weight) if re.fullmatch(r"\d(\.\d{1,3})?", weight) else 1.0
        weighed.append((-quality, place, name.partition("-")[0]))
    return next((name for quality, _, name in sorted(weighed) if name in LANGUAGES and quality), "en")


def say(language: str, key: str, **values: object) -> str:
    """The words of `key`, with `values` in their places."""
    return WORDS[key][LANGUAGES.index(language)].format(**values)
