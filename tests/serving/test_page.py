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
    for path in ("/", "/page.js", "/page.css", "/docs", "/docs.js"):
        reply = server.ask("GET", path)
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(rb"https?://|//cdn|innerHTML|eval\(", reply.body)
    for page in ("index.html", "docs.html"):
        assert b"<script>" not in (PAGE / page).read_bytes()
        assert b"style=" not in (PAGE / page).read_bytes()


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


@pytest.mark.slow
@browsed
@pytest.mark.parametrize(("name", "width"), [("table", 360), ("image", 1000)])
def test_the_documentation_is_read_and_tried_without_the_network(serve: Start, browse: Open, name: str, width: int) -> None:
    """Every operation of the document has its place, its schemas, and an example that is answered; nothing comes from elsewhere."""
    server: Server = serve(name)
    page = browse(f"http://127.0.0.1:{server.port}/docs", width=width)
    page.until("document.querySelectorAll('details.operation').length > 0")
    document = server.ask("GET", "/openapi.json").json()
    operations = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    shown = page.evaluate("Array.from(document.querySelectorAll('details.operation > summary b'), (e) => e.textContent)")
    assert set(shown) == operations
    text = page.evaluate("document.body.textContent")
    for field in document["components"]["schemas"]["Record"]["properties"].values():
        assert field["description"] in text
    page.evaluate("document.querySelectorAll('details.operation').forEach((d) => { d.open = true; })")
    for path, count in (("/predict", 2), ("/v2/models/toy/infer", 1), ("/invocations", 2)):
        find = f"Array.from(document.querySelectorAll('details.operation')).find((d) => d.textContent.startsWith('POST {path} '))"
        for i in range(count):
            page.evaluate(
                f"{{ const d = {find}, s = d.querySelector('select');"
                f" if (s) {{ s.selectedIndex = {i}; s.dispatchEvent(new Event('change')); }}"
                " d.querySelector('output').textContent = ''; d.querySelector('button').click(); }"
            )
            page.until(f"{find}.querySelector('output').textContent.startsWith('200')")
            assert page.evaluate(f"JSON.parse({find}.querySelector('pre').textContent) !== null")
    fetched = page.evaluate("performance.getEntriesByType('resource').map((e) => e.name).concat([location.href])")
    assert len(fetched) >= 8
    assert all(url.startswith((f"http://127.0.0.1:{server.port}/", "data:")) for url in fetched), fetched
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.problems == []


@pytest.mark.slow
@browsed
def test_the_documentation_behind_a_token(tmp_path: Path, browse: Open) -> None:
    bundles.table(tmp_path / "b")
    with started(tmp_path / "b", tmp_path, env={"GROUNDUP_TOKEN": "0123456789abcdef"}) as server:
        page = browse(f"http://127.0.0.1:{server.port}/docs")
        page.until("!document.getElementById('login').hidden")
        assert page.evaluate("document.querySelectorAll('details.operation').length") == 0
        page.evaluate("document.getElementById('token').value = '0123456789abcdef'; document.querySelector('#login button').click()")
        page.until("document.querySelectorAll('details.operation').length > 0")
        page.evaluate("document.querySelector('details.operation button').click()")
        page.until("document.querySelector('details.operation output').textContent.startsWith('200')")
        assert [p for p in page.problems if "401" not in p] == []
