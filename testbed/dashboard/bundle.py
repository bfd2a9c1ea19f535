"""The plotting library of the page: Vega, Vega-Lite and Vega-Embed in one script.

It is no part of the repository: the package's build makes it of the PyPI package vl-convert-python,
which carries the three, needs no network for it and always gives the same text.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from testbed.errors import MachineLacks, TestbedError

FILE = Path(__file__).parent / "page" / "vega.js"
VERSIONS = "Vega 6.2.0, Vega-Lite 6.4, Vega-Embed 7.0.2"
PACKAGE = "vl-convert-python==1.9.0.post1"
SHA256 = "3425bd951a44d478d0505c6b5d1e8d57656b6e9a4da7bfe88a718ce61d76e572"
"""Of what the package gives, so that another script never gets into a page unseen."""

_LICENCE = """\
/*! {versions}: Copyright (c) 2013-2026, University of Washington Interactive Data Lab and others.
All rights reserved.

Redistribution and use in source and binary forms, with or without modification, are permitted provided that
the following conditions are met: 1. Redistributions of source code must retain the above copyright notice,
this list of conditions and the following disclaimer. 2. Redistributions in binary form must reproduce the
above copyright notice, this list of conditions and the following disclaimer in the documentation and/or
other materials provided with the distribution. 3. Neither the name of the copyright holder nor the names of
its contributors may be used to endorse or promote products derived from this software without specific prior
written permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR IMPLIED
WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A
PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY
DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO,
PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER
CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR
OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH
DAMAGE. */
"""
# The package gives a module, which a page from a file may not load: a function keeps its names apart.
_HEAD = _LICENCE.format(versions=VERSIONS) + "(() => {\n"
_END = "\n})();\n"


def make(target: Path = FILE) -> None:
    """Write the script, unless it is there.

    Raises MachineLacks without the package, TestbedError where it is another version.
    """
    if target.exists() and is_right(target.read_text()):
        return
    try:
        import vl_convert
    except ImportError:
        raise MachineLacks(f"the page's plotting library is made of {PACKAGE}: install it with pip") from None
    script = vl_convert.javascript_bundle()
    if hashlib.sha256(script.encode()).hexdigest() != SHA256:
        raise TestbedError(f"{PACKAGE} gives another script than it should: another version is installed")
    scratch = target.with_suffix(".js.new")
    scratch.write_text(_HEAD + script + _END)
    scratch.replace(target)


def is_right(text: str) -> bool:
    """Whether this is the page's script, whole and unchanged."""
    script = text.removeprefix(_HEAD).removesuffix(_END)
    return hashlib.sha256(script.encode()).hexdigest() == SHA256


def require() -> Path:
    """The script's file. Raises MachineLacks where the package was never built."""
    if not FILE.exists():
        raise MachineLacks(
            f"{FILE} is missing: it is made when testbed is installed (pip install --editable .),"
            f" or with `pip install {PACKAGE}` and `python -m testbed.dashboard.bundle`"
        )
    return FILE


if __name__ == "__main__":
    try:
        make()
    except TestbedError as problem:
        sys.exit(f"testbed: {problem}")
