"""The page at /, in a real browser: drawn on, filled in, on a wide and a narrow screen, light and dark, without the network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bundles
import pytest
from browser import CHROMIUM, Browser
from live_server import Server, Start, started

import groundup.serving

PAGE = Path(groundup.serving.__path__[0]) / "page"
browsed = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
Open = Callable[..., Browser]


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Open]:
    opened: list[Browser] = []

    def open_(url: str, **settings: Any) -> Browser:
        browser = Browser(tmp_path / f"profile{len(opened)}", **({"width": 1000, "height": 800} | settings))
        opened.append(browser)
        browser.open(url)
        return browser

    yield open_
    for browser in opened:
        browser.close()


def test_the_page_is_self_contained_and_locked_down(serve: Start) -> None:
    server: Server = serve("mlp")
    for path in ("/", "/page.js", "/page.css"):
        reply = server.ask("GET", path)
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(rb"https?://|//cdn|innerHTML|eval\(", reply.body)
    assert b"<script>" not in (PAGE / "index.html").read_bytes()
    assert b"style=" not in (PAGE / "index.html").read_bytes()


@pytest.mark.slow
@browsed
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1000])
def test_drawing(serve: Start, browse: Open, width: int, dark: bool) -> None:
    server: Server = serve("image")
    page = browse(f"http://127.0.0.1:{server.port}/", width=width, dark=dark)
    page.until("!document.getElementById('draw').hidden")
    box = "document.getElementById('canvas').getBoundingClientRect()"
    left, top, side = (page.evaluate(f"{box}.{what}") for what in ("left", "top", "width"))
    before = server.metric("groundup_requests_total", protocol="predict", code="200")
    page.drag([(left + side * 0.5, top + side * t / 10) for t in range(2, 9)])
    page.until("document.getElementById('bars').children.length === 10")
    assert page.evaluate("document.getElementById('answer').textContent") in set("0123456789")
    assert server.metric("groundup_requests_total", protocol="predict", code="200") > before
    pixels = "document.getElementById('seen').getContext('2d').getImageData(0, 0, 8, 8).data"
    seen = page.evaluate(f"Array.from({pixels}).filter((_, i) => i % 4 === 0)")
    assert max(seen) > 90  # the stroke arrives; thin as it is, it may fall between two pixels
    assert min(seen) == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", back)[:3])) < 150) == dark
    assert page.problems == []


@pytest.mark.slow
@browsed
def test_a_form_with_a_token(tmp_path: Path, browse: Open) -> None:
    bundles.table(tmp_path / "b")
    with started(tmp_path / "b", tmp_path, env={"GROUNDUP_TOKEN": "0123456789abcdef"}) as server:
        page = browse(f"http://127.0.0.1:{server.port}/", width=360)
        page.until("!document.getElementById('login').hidden")
        page.evaluate("document.getElementById('token').value = '0123456789abcdef'; document.querySelector('#login button').click()")
        page.until("/\\d/.test(document.getElementById('answer').textContent)")
        before = page.evaluate("document.getElementById('answer').textContent")
        page.evaluate(
            "const i = document.querySelector('#form input'); i.value = '1000000'; i.dispatchEvent(new Event('input', {bubbles: true}));"
        )
        page.until(f"document.getElementById('answer').textContent !== {before!r}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert [p for p in page.problems if "401" not in p] == []
