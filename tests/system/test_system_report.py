"""The report of a real study, opened in a real browser as its readers do: from a file, on a desk and on a phone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkout import Checkout

pytestmark = pytest.mark.slow

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
DESK, PHONE = (1280, 900), (375, 812)
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
SORTED = """
const table = document.querySelector(arguments[0]), heads = [...table.tHead.rows[0].cells];
const at = heads.findIndex((head) => head.textContent.startsWith(arguments[1]));
return [heads[at].getAttribute("aria-sort"), [...table.tBodies[0].rows].map((row) => row.cells[at].textContent)];
"""
CONTRAST = """
const light = (colour) => {
  const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
};
let lowest = [99, ""];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; (node = walker.nextNode());) {
  const parent = node.parentElement;
  if (!node.data.trim() || ["SCRIPT", "STYLE", "title"].includes(parent.tagName)) continue;
  const style = getComputedStyle(parent), svg = parent.namespaceURI.endsWith("svg");
  const pair = [light(svg ? style.fill : style.color), light(behind(parent))].sort((a, b) => b - a);
  const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
  if (ratio < lowest[0]) lowest = [ratio, node.data.trim().slice(0, 40)];
}
return lowest;
"""


@pytest.fixture(scope="module")
def report(by_dvc: Checkout, once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The page of the tiny study; only to be read."""
    folder = once("report", lambda folder: by_dvc.copy(folder / "project").ok("edc", "report"))
    return folder / "project/results/report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window, and without a way out."""
    if CHROMIUM is None or DRIVER is None:
        missing = "no chromium and chromedriver on this machine (Debian: apt-get install chromium chromium-driver)"
        assert not os.environ.get("EDC_NEEDS_BROWSER"), missing
        pytest.skip(missing)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def open_page(browser: Any, path: Path, size: tuple[int, int] = DESK, scheme: str = "light") -> None:
    """Load a page at a size of window, in a colour scheme, with empty logs."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size is PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get("about:blank")
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())


def requests(browser: Any) -> list[str]:
    """Addresses the page asked for, but what it carries itself."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith("data:")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_the_page_fits_reads_well_and_asks_for_nothing(
    browser: Any, report: Path, size: tuple[int, int], scheme: str
) -> None:
    open_page(browser, report, size, scheme)
    assert browser.title == "Dataset condensation: study tiny"
    wide, seen = browser.execute_script("const e = document.documentElement; return [e.scrollWidth, e.clientWidth]")
    assert wide == seen <= size[0]
    ratio, text = browser.execute_script(CONTRAST)
    assert ratio >= 4.5, f"contrast {ratio:.2f} of {text!r}"
    back = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") == (scheme == "light")
    assert browser.get_log("browser") == []
    assert requests(browser) == [report.as_uri()]


def test_a_cell_says_what_the_table_says(browser: Any, report: Path) -> None:
    open_page(browser, report)
    lines = (report.parent / "tables/table1.md").read_text().splitlines()
    head, row = (next(one for one in lines if mark in one) for mark in ("| IPC |", "| edc | edc |"))
    names, cells = ([cell.strip().replace("*", "") for cell in line.strip("|").split("|")] for line in (head, row))
    written = dict(zip(names, cells, strict=True))
    heads, rows = browser.execute_script(
        "const table = document.querySelector('#tables-table1 ~ .scroll table');"
        "const texts = (row) => [...row.cells].map((cell) => cell.textContent);"
        "return [texts(table.tHead.rows[0]), [...table.tBodies[0].rows].map(texts)];"
    )
    assert len(set(heads)) == len(heads)
    page = [dict(zip(heads, row, strict=True)) for row in rows]
    shown = next(row for row in page if (row["recipe"], row["protocol"]) == ("edc", "edc"))
    assert "±" in shown["final"]
    # The page gives seconds to a tenth, and commits beside the runs.
    written = {name: cell for name, cell in written.items() if name not in ("s", "commit")}
    assert {name: shown.get(name) for name in written} == written


def test_a_click_on_a_head_sorts_both_ways(browser: Any, report: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    open_page(browser, report)
    selector = "#tables-table1 ~ .scroll table"
    heads = browser.find_element(By.CSS_SELECTOR, selector).find_elements(By.CSS_SELECTOR, "th button")

    def column(name: str) -> tuple[str, list[str]]:
        state, cells = browser.execute_script(SORTED, selector, name)
        return state, cells

    assert column("final")[0] == "none"
    button = next(head for head in heads if head.text.startswith("final"))
    button.click()
    state, cells = column("final")
    falling = [float(cell.split(" ")[0]) for cell in cells if cell]
    assert (state, falling) == ("descending", sorted(falling, reverse=True))
    assert len(set(falling)) > 1
    empty = cells.count("")
    assert cells[len(cells) - empty :] == [""] * empty
    button.send_keys(Keys.ENTER)  # as by the keyboard
    state, cells = column("final")
    rising = [float(cell.split(" ")[0]) for cell in cells if cell]
    assert (state, rising) == ("ascending", falling[::-1])
    assert cells[len(cells) - empty :] == [""] * empty
    next(head for head in heads if head.text.startswith("recipe")).click()
    assert column("final")[0] == "none"
    state, names = column("recipe")
    assert (state, names) == ("ascending", sorted(names))
    assert len(set(names)) > 2
    assert browser.get_log("browser") == []


def test_every_link_of_the_contents_leads_somewhere(browser: Any, report: Path) -> None:
    open_page(browser, report)
    targets = browser.execute_script(
        "return [...document.querySelectorAll('a[href^=\"#\"]')].map((a) => a.hash.slice(1))"
    )
    assert {"summary", "tables", "figures", "images", "plan", "provenance"} <= set(targets)
    assert browser.execute_script("return arguments[0].filter((id) => !document.getElementById(id))", targets) == []
    shown = browser.execute_script("return [...document.images].map((image) => image.naturalWidth)")
    assert shown
    assert min(shown) > 0
    assert browser.execute_script("return document.querySelectorAll('.chart svg').length") > 2


def test_the_same_results_give_the_same_bytes(report: Path, tmp_path: Path) -> None:
    checkout = Checkout(report.parents[1]).copy(tmp_path / "project")
    before = checkout.files()
    assert "wrote results/report.html" in checkout.ok("edc", "report", PYTHONHASHSEED="7")
    assert checkout.files() == before
    checkout.ok("edc", "report", "--to", "page.html")
    assert checkout.path("page.html").read_bytes() == report.read_bytes()


def test_a_damaged_result_is_one_line_and_the_old_report_stays(report: Path, tmp_path: Path) -> None:
    checkout = Checkout(report.parents[1]).copy(tmp_path / "project")
    sheet = next(checkout.path("results").glob("synthesize/*/contact_sheet.png"))
    sheet.write_bytes(sheet.read_bytes()[:100])
    assert sheet.name in checkout.refused("edc", "report")


def test_without_results_there_is_no_report(planned: Checkout) -> None:
    assert "no finished evaluation" in planned.refused("edc", "report")


def test_tracked_runs_are_linked_by_their_ids(report: Path, tmp_path: Path) -> None:
    checkout = Checkout(report.parents[1]).copy(tmp_path / "project")
    checkout.ok("edc", "track", EDC_TRACKING="on")
    checkout.ok("edc", "report", EDC_TRACKING="on")
    content = checkout.path("results", "report.html").read_text()
    assert "Tracked runs" in content
    assert content.count('href="http://127.0.0.1:5000/#/experiments/') > 5


@pytest.mark.early(2)
def test_snakemake_reports_the_pictures_and_tables_too(by_snakemake: Checkout, tmp_path: Path) -> None:
    checkout = by_snakemake.copy(tmp_path / "project")
    checkout.ok("snakemake", "--report", "report.html")
    content = checkout.path("report.html").read_text()
    assert all(name in content for name in ("contact_sheet.png", "curves.png", "table1.csv"))
    assert checkout.stale() == {"dvc": set(), "snakemake": set()}
