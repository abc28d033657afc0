"""A real browser, and what every page of ours is held to in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from programs import require_program

_DESKTOP = {"width": 1000, "height": 900, "deviceScaleFactor": 1, "mobile": False}
_PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Start a headless Chromium; skips the test where there is none."""
    programs = require_program("chromium"), require_program("chromedriver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1000,900", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=programs[1]))
    try:
        yield driver
    finally:
        driver.quit()


def look_at(browser: Any, name: str) -> None:
    """Hold the page to both widths and both modes; with PET_SCREENSHOTS, a folder, pictures of all four are left there."""
    for width, device in (("desktop", _DESKTOP), ("phone", _PHONE)):
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
        for mode in ("light", "dark"):
            browser.execute_cdp_cmd(
                "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": mode}]}
            )
            widest = browser.execute_script("return document.documentElement.scrollWidth")
            assert widest <= device["width"], f"{name}: wider than a {width}"
            assert low_contrasts(browser) == [], (width, mode)
            if folder := os.environ.get("PET_SCREENSHOTS"):
                height = browser.execute_script("return document.documentElement.scrollHeight")
                browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**device, "height": max(height, 300)})
                browser.save_screenshot(f"{folder}/{name}_{width}_{mode}.png")
                browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)


def low_contrasts(browser: Any) -> list[str]:
    """Return every shown text whose contrast with what is behind it is below WCAG AA, as the browser computed the colours."""
    found = browser.execute_script(_SHOWN_TEXTS)
    assert found, "a page without a text"
    return [f"{text}: {front} on {back}" for text, front, back in found if contrast(front, back) < 4.5]


#: Texts with their colour and that of the nearest ground; none of ours is translucent, as `opacity` and `rgba` would show here.
_SHOWN_TEXTS = """
const found = [], ground = (element) => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)") return colour;
  }
  return "rgb(255, 255, 255)";
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
  if (!text || !element.checkVisibility({checkVisibilityCSS: true})) continue;
  if (["SCRIPT", "STYLE", "TITLE"].includes(element.tagName.toUpperCase())) continue;
  const style = getComputedStyle(element);
  if (style.opacity !== "1") found.push([text, "rgb(0, 0, 0)", "rgb(0, 0, 0)"]);
  found.push([text, element instanceof SVGElement ? style.fill : style.color, ground(element)]);
}
return found;
"""


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours in the form rgb(r, g, b)."""
    dark, light = sorted([_luminance(one), _luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    """As WCAG 2 defines it."""
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(", ")]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def complaints(browser: Any) -> list[str]:
    """Return what the browser said of the page; a missing favicon is none of our business, a refused script would be."""
    return [entry["message"] for entry in browser.get_log("browser") if "favicon" not in entry["message"]]
