"""The Markdown of docs/api.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from api_docs.schema import Enum, Field, File, Message, Method, Service

HEAD = """\
<!-- Written by scripts/api-docs from protos/: change the comments there, then run `make proto`. -->

# API

{preamble}
"""
REASONS = "ErrorReason"
_PREFIX = "ERROR_REASON_"


class Page:
    """The page of some files; `examples` are texts by name, such as "EditImage.py"."""

    def __init__(self, files: Sequence[File], preamble: str, examples: Mapping[str, str]) -> None:
        self._files = files
        self._preamble = preamble
        self._examples = examples
        messages = {message.name for file in files for message in file.messages}
        self._declared = messages | {enum.name for file in files for enum in file.enums}

    def text(self) -> str:
        """The whole page.

        Raises:
            ValueError: when two headings have one anchor, or an example belongs to no method.
        """
        lines = [HEAD.format(preamble=self._preamble.strip())]
        lines += self._overview()
        for file in self._files:
            for service in file.services:
                lines += self._service(service)
        for file in self._files:
            lines += self._declarations(file)
        lines += self._reasons()
        page = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"
        _check_anchors(page)
        self._check_examples()
        return page

    def _overview(self) -> Iterator[str]:
        yield "## Methods\n"
        yield "| method | request | response | |"
        yield "|---|---|---|---|"
        for service in self._services():
            for method in service.methods:
                stream = "stream of " if method.streams else ""
                yield (
                    f"| [{service.name}.{method.name}](#{anchor(_title(service, method))}) "
                    f"| {self._link(method.request)} | {stream}{self._link(method.response)} "
                    f"| {_cell(_sentence(method))} |"
                )
        yield ""

    def _service(self, service: Service) -> Iterator[str]:
        yield f"\n## {service.name}\n"
        yield f"{service.comment} Full name: `{service.package}.{service.name}`.\n"
        for method in service.methods:
            yield f"\n### {_title(service, method)}\n"
            yield f"{method.comment}\n"
            stream = "a stream of " if method.streams else ""
            yield f"{self._link(method.request)} → {stream}{self._link(method.response)}\n"
            yield from self._example(service, method)

    def _example(self, service: Service, method: Method) -> Iterator[str]:
        python = self._examples.get(f"{method.name}.py")
        if python is not None:
            yield f"```python\n{python.strip()}\n```\n"
        body = self._examples.get(f"{method.name}.json")
        if body is not None:
            # What stands for a file's bytes becomes the shell's way to put them there.
            shell = re.sub(r"@([\w.-]+)", r"""'"$(base64 -w0 \1)"'""", body.strip())
            path = f"{service.package}.{service.name}/{method.name}"
            yield f"```sh\ngrpcurl -plaintext -d '{shell}' localhost:8500 {path}\n```\n"

    def _declarations(self, file: File) -> Iterator[str]:
        if not file.messages and all(enum.name == REASONS for enum in file.enums):
            return
        yield f"\n## {file.path}\n"
        for message in file.messages:
            yield from self._message(message)
        for enum in file.enums:
            if enum.name != REASONS:
                yield from self._enum(enum)

    def _message(self, message: Message) -> Iterator[str]:
        yield f"\n### {message.name}\n"
        yield f"{message.comment}\n"
        if not message.fields:
            yield "No fields.\n"
            return
        yield "| field | type | limits | |"
        yield "|---|---|---|---|"
        oneofs = {oneof.name: oneof for oneof in message.oneofs}
        for field in message.fields:
            if field.oneof in oneofs:  # before its first member
                oneof = oneofs.pop(field.oneof)
                limits = "required" if oneof.required else ""
                yield f"| *{oneof.name}* | one of | {limits} | {_cell(oneof.comment)} |"
            yield self._row(field)
        yield ""

    def _row(self, field: Field) -> str:
        name = f"└ `{field.name}`" if field.oneof else f"`{field.name}`"
        kind = self._link(field.type_name) if field.is_declared else field.type_name
        limits = ", ".join(field.limits)
        return f"| {name} | {f'{field.label} {kind}'.strip()} | {limits} | {_cell(field.comment)} |"

    def _enum(self, enum: Enum) -> Iterator[str]:
        yield f"\n### {enum.name}\n"
        yield f"{enum.comment}\n"
        yield "| value | number | |"
        yield "|---|---|---|"
        for value in enum.values:
            yield f"| `{value.name}` | {value.number} | {_cell(value.comment)} |"
        yield ""

    def _reasons(self) -> Iterator[str]:
        found = [enum for file in self._files for enum in file.enums if enum.name == REASONS]
        for enum in found:
            yield "\n## Error reasons\n"
            yield f"{enum.comment}\n"
            yield "| status | reason | |"
            yield "|---|---|---|"
            for value in enum.values:
                status, colon, meaning = value.comment.partition(": ")
                if colon:
                    reason = value.name.removeprefix(_PREFIX)
                    yield f"| {status} | `{reason}` | {_cell(meaning)} |"
            yield ""

    def _services(self) -> Iterator[Service]:
        for file in self._files:
            yield from file.services

    def _link(self, name: str) -> str:
        return f"[{name}](#{anchor(name)})" if name in self._declared else name

    def _check_examples(self) -> None:
        methods = {method.name for service in self._services() for method in service.methods}
        for name in self._examples:
            if Path(name).stem not in methods:
                raise ValueError(f"the example {name} belongs to no method")


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _title(service: Service, method: Method) -> str:
    return f"{service.name}.{method.name}"


def _sentence(method: Method) -> str:
    """The comment without the method's own name, which stands beside it."""
    text = method.comment.removeprefix(f"{method.name} ")
    return text[:1].upper() + text[1:]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _check_anchors(page: str) -> None:
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    anchors = [anchor(heading) for heading in headings]
    twice = {each for each in anchors if anchors.count(each) > 1}
    if twice:
        raise ValueError(f"several headings have the anchors {', '.join(sorted(twice))}")
