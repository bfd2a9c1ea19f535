"""Jinja2 templates: render a topology file and tell which source line each rendered line comes from.

A template is a program somebody else wrote, so it runs in a child process with a deadline, a memory
limit and Jinja2's immutable sandbox. The child also spares the caller the import of Jinja2.
"""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.errors import BadInput

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.nodes import Template

RENDER_SECONDS = 5.0
MAX_SOURCE_BYTES = 1 << 20
MAX_RENDERED_BYTES = 4 << 20
MEMORY_BYTES = 256 << 20  # on top of what the process has when it forks

_SYNTAX = re.compile(r"\{[{%#]")
_MARK = re.compile("\ue000([0-9]+)\ue001")
_RESERVED_NAMES = {"true", "false", "none", "True", "False", "None", "loop", "self"}


class Rendering:
    """A topology file being rendered; use it as a context manager, so that no child is left.

    The work goes on in a child process from the beginning; :meth:`text` waits for it.
    """

    def __init__(self, path: Path, source: str, values: Mapping[str, object]) -> None:
        self.path = path
        self.source = source
        self.values = values
        self._text = None if is_template(source) else source
        self._child = _Child(lambda: _render(path, source, values)) if self._text is None else None

    def __enter__(self) -> Rendering:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.close()

    def text(self) -> str:
        """The rendered text. Raises BadInput with file and line."""
        if self._text is None:
            assert self._child is not None
            text = self._child.result(self.path)
            if (found := unprintable(text)) is not None:
                line, character = found
                raise BadInput(
                    f"{self.path}: rendered line {line} has the control character {character}; remove it"
                )
            self._text = text
        return self._text

    def lines(self) -> list[int] | None:
        """Source line (from 1) of each rendered line, or None where that can't be known.

        The template is rendered once more with a marker at the beginning of every source line. When
        the text without markers is the same, the markers tell where each line comes from.
        """
        rendered = self.text()
        if self._child is None:
            return list(range(1, rendered.count("\n") + 2))
        child = _Child(lambda: _render(self.path, self.source, self.values, marks=True))
        try:
            marked = child.result(self.path)
        except BadInput:
            return None
        finally:
            child.close()
        return _line_map(marked) if _same(_MARK.sub("", marked), rendered) else None


def begin(path: Path, variables: Mapping[str, str]) -> Rendering:
    """Begin to render a file. ``variables``: those of ``--set``, each value a YAML scalar.

    Raises BadInput for an unreadable file or a bad variable; a bad template shows in ``text()``.
    """
    values = _values(variables)
    source = read_source(path)
    if values and not is_template(source):
        raise BadInput(
            f"--set {next(iter(values))}: {path} is no template, it uses no variable; leave it out"
        )
    return Rendering(path, source, values)


def _values(variables: Mapping[str, str]) -> dict[str, object]:
    values: dict[str, object] = {}
    if not variables:
        return values
    from testbed.topology import document

    for name, text in variables.items():
        if not name.isascii() or not name.isidentifier() or name in _RESERVED_NAMES:
            remedy = "use letters, digits and underscores"
            raise BadInput(f"--set {document.short(name)}: is no variable name; {remedy}")
        try:
            values[name] = document.scalar(text) if text else ""
        except document.YamlError as error:
            raise BadInput(f"--set {name}: {error.message}") from None
    return values


def _same(one: str, other: str) -> bool:
    """Whether two texts differ in nothing but blanks at the ends of lines."""
    return [line.rstrip() for line in one.split("\n")] == [line.rstrip() for line in other.split("\n")]


def _line_map(marked: str) -> list[int]:
    """Source line of each line, from the last marker before the line's first visible character."""
    lines, current = [], 1
    for text in marked.split("\n"):
        for mark in _MARK.finditer(text):
            if _MARK.sub("", text[: mark.start()]).strip():
                break
            current = int(mark[1])
        lines.append(current)
    return lines


def read_source(path: Path) -> str:
    """The file's text with LF line ends. Raises BadInput when it can't be read or is no text."""
    try:
        with path.open("rb") as stream:
            if not os.path.isfile(stream.fileno()):  # noqa: PTH113 - asks the descriptor, not the name
                raise BadInput(f"{path}: is not a regular file; name a topology file (YAML)")
            data = stream.read(MAX_SOURCE_BYTES + 1)
    except IsADirectoryError:
        raise BadInput(f"{path}: is a folder; name the topology file in it") from None
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadInput(f"{str(path)!r}: can't be read: {reason}") from None
    if len(data) > MAX_SOURCE_BYTES:
        raise BadInput(f"{path}: more than {MAX_SOURCE_BYTES} bytes; a topology file is smaller")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}:{line}: is not UTF-8 text; name a topology file (YAML)") from None
    text = text.replace("\r\n", "\n")
    if (found := unprintable(text)) is not None:
        line, character = found
        raise BadInput(f"{path}:{line}: control character {character}; a topology file is plain text")
    return text


def unprintable(text: str) -> tuple[int, str] | None:
    """Line (from 1) and name ("U+0000") of the first character that is not allowed, or None.

    Allowed is what YAML 1.1 calls printable (section 5.1), less the line breaks that only YAML 1.1
    knows and the private use area, from which the markers of lines are taken.
    """
    if text.replace("\n", "").replace("\t", "").isprintable():
        return None  # the usual case, without the slow compilation of the pattern
    found = re.search(
        "[^\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\uf900-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]", text
    )
    if found is None:
        return None
    return text.count("\n", 0, found.start()) + 1, f"U+{ord(found[0]):04X}"


def is_template(source: str) -> bool:
    """Whether the text has anything for Jinja2 to do."""
    return _SYNTAX.search(source) is not None


class _TemplateError(Exception):
    """Where (a source line, or None) and what; turned into BadInput by the parent."""

    def __init__(self, line: int | None, message: str, file: str = "") -> None:
        super().__init__(message)
        self.line, self.message, self.file = line, message, file


def _environment(folder: Path) -> Environment:
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    env = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        loader=FileSystemLoader(folder),
    )
    # The same file and variables always give the same lab.
    del env.filters["random"], env.globals["lipsum"]
    return env


def _render(path: Path, source: str, variables: Mapping[str, object], marks: bool = False) -> str:
    """Render here and now. Raises _TemplateError."""
    from jinja2 import TemplateSyntaxError

    env = _environment(path.parent)
    try:
        tree = env.parse(_with_marks(env, source) if marks else source)
        _refuse_unused(tree, variables)
        pieces, size = [], 0
        for piece in env.from_string(tree).generate(variables):
            size += len(piece)
            if size > MAX_RENDERED_BYTES:
                raise _TemplateError(
                    None, f"the template yields more than {MAX_RENDERED_BYTES} bytes; make it smaller"
                )
            pieces.append(piece)
    except _TemplateError:
        raise
    except MemoryError:
        limit = MEMORY_BYTES >> 20
        raise _TemplateError(None, f"the template needs more than {limit} MiB; make it smaller") from None
    except TemplateSyntaxError as error:
        raise _TemplateError(error.lineno, f"template syntax: {error.message}", error.name or "") from None
    except Exception as error:
        raise _TemplateError(_template_line(error), f"template: {_explain(error)}") from None
    return "".join(pieces)


def _explain(error: Exception) -> str:
    """What went wrong in a template, with a remedy where there is one to give."""
    from jinja2 import TemplateError, TemplateNotFound
    from jinja2.exceptions import SecurityError

    message = str(error) or type(error).__name__
    if isinstance(error, RecursionError):
        return "a macro calls itself without end; give the recursion an end"
    if isinstance(error, OverflowError) and "MAX_RANGE" in message:
        return "a range of more than 100000 items; make it smaller"
    if isinstance(error, TemplateNotFound):
        return f"{error.name!a} can't be included; only files in the same folder or below can"
    if isinstance(error, SecurityError):
        return f"{message.rstrip('.')}; a template can't reach into Python"
    if message.endswith("is undefined"):
        name = message.split("'")[1]
        return f"{message}; pass --set {name}=VALUE, or give it a default in the file"
    return message if isinstance(error, TemplateError) else f"{type(error).__name__}: {message}"


def _refuse_unused(tree: Template, variables: Mapping[str, object]) -> None:
    """A misspelt --set must not pass in silence. What included files use can't be seen from here."""
    from jinja2 import nodes

    elsewhere = (nodes.Include, nodes.FromImport, nodes.Import, nodes.Extends)
    if not variables or next(tree.find_all(elsewhere), None):
        return
    used = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "load"}
    for name in variables:
        if name not in used:
            known = ", ".join(sorted(used - {"range", "loop", "namespace", "dict"})) or "none"
            raise _TemplateError(None, f"--set {name}: the file uses no such variable; it knows: {known}")


def _template_line(error: BaseException) -> int | None:
    """Line of the top template in the traceback, which Jinja2 rewrites in the template's terms."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _with_marks(env: Environment, source: str) -> str:
    """The source with a marker at the beginning of each piece of plain text and each line in it."""
    parts: list[str] = []
    for line, kind, text in env.lex(source):
        if kind != "data":
            parts.append(text)
            continue
        pieces = text.split("\n")
        parts.append("\n".join(f"\ue000{line + index}\ue001{piece}" for index, piece in enumerate(pieces)))
    return "".join(parts)


class _Child:
    """A forked process that does ``work`` under limits; end it with ``close``."""

    def __init__(self, work: Callable[[], str]) -> None:
        self._reading, writing = os.pipe()
        self._deadline = time.monotonic() + RENDER_SECONDS
        with warnings.catch_warnings():
            # Python 3.12 warns when other threads exist; the child only renders, writes and ends.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            _child(writing, work)
        os.close(writing)
        self._open = True

    def close(self) -> int:
        """End the child if it runs; its wait status. Idempotent."""
        if not self._open:
            return 0
        self._open = False
        os.close(self._reading)
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        return os.waitpid(self._pid, 0)[1]

    def result(self, path: Path) -> str:
        """What the work yields. Raises BadInput, also at the deadline."""
        try:
            data = b"".join(self._chunks(path))
        finally:
            status = self.close()
        if status == 0 and data[:1] == b"T":
            return data[1:].decode("utf-8")
        if status != 0 or data[:1] != b"E":
            how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {status}"
            raise BadInput(f"{path}: rendering the template ended with {how}; make it simpler")
        line, file, message = data[1:].decode("utf-8").split("\n", 2)
        place = str(path.parent / file) if file else str(path)
        if line:
            place += f":{line}"
        raise BadInput(message if message.startswith("--set") else f"{place}: {message}")

    def _chunks(self, path: Path) -> Iterator[bytes]:
        poller = select.poll()
        poller.register(self._reading, select.POLLIN)
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                message = (
                    f"the template takes more than {RENDER_SECONDS:g} s; look for an endless or huge loop"
                )
                raise BadInput(f"{path}: {message}")
            data = os.read(self._reading, 1 << 18)
            if not data:
                return
            yield data


def _child(writing: int, work: Callable[[], str]) -> Any:
    """The child's whole life; never returns."""
    code = 1
    try:
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_DFL)  # the parent's handlers would undo the parent's work
        seconds = int(RENDER_SECONDS) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + MEMORY_BYTES
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            answer = b"T" + work().encode("utf-8")
        except _TemplateError as error:
            message = error.message.replace("\n", " ")
            answer = f"E{error.line or ''}\n{error.file}\n{message}".encode("utf-8", "backslashreplace")
        view = memoryview(answer)
        while view:
            view = view[os.write(writing, view) :]
        code = 0
    finally:
        os._exit(code)
