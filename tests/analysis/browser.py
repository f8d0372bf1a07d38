"""A page opened from disk in headless Chromium: console, pictures, width, and axe's accessibility rules."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright


@dataclass
class Visit:
    """What was seen of a page."""

    problems: list[str] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)
    overflow: int = 0
    violations: list[str] = field(default_factory=list)


_PICTURES = "[...document.images].map(one => ({alt: one.alt, width: one.naturalWidth, complete: one.complete}))"
_OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def browser() -> str:
    """Path of Debian's Chromium; skips, by name, where there is none that runs (Ubuntu's names a snap to install)."""
    path = shutil.which("chromium")
    if path is None or subprocess.run([path, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("chromium is not installed, or does not run")
    return path


def visit(page: Path, *, width: int = 1280, scheme: str = "light", screenshot: Path | None = None) -> Visit:
    """Open a page without network and look at it."""
    seen = Visit()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        tab = context.new_page()
        tab.on("console", lambda message: seen.problems.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: seen.problems.append(str(error)))
        tab.on("requestfailed", lambda request: seen.problems.append(request.url[:200]))
        tab.goto(page.as_uri())
        # Tables and texts inside are looked at, too.
        tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        seen.pictures = tab.evaluate(_PICTURES)
        seen.overflow = tab.evaluate(_OVERFLOW)
        found = Axe().run(tab).response["violations"]
        seen.violations = [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]
        if screenshot is not None:
            tab.screenshot(path=screenshot, full_page=True)
        chromium.close()
    return seen
