"""The report of the committed record in a real browser, opened from a file, on a desk and on a phone."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import REPOSITORY

from edc.config.plan import make_plan
from edc.reporting import record
from edc.reporting.report import page

pytestmark = pytest.mark.slow
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
ENDS = "return [...document.querySelectorAll('.first li')].map((item) => item.getBoundingClientRect().bottom)"
COLUMN = """
const table = document.querySelector("#results ~ * table.sortable");
const at = [...table.tHead.rows[0].cells].findIndex((head) => head.textContent.startsWith("final"));
return [table.tHead.rows[0].cells[at], [...table.tBodies[0].rows].map((row) => Number(row.cells[at].dataset.order))];
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        path.write_text(page(make_plan("digits"), record.read()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
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
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.implicitly_wait(10)
    yield driver
    driver.quit()


@pytest.mark.parametrize("size", [(1280, 900), (400, 812)])
def test_the_page_fits_and_shows_every_picture_without_an_error(
    browser: Any, report: Path, size: tuple[int, int]
) -> None:
    browser.set_window_size(*size)
    browser.get(report.as_uri())
    browser.find_element("css selector", "table.dataTable")
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    widths = browser.execute_script("return [...document.images].map((image) => image.naturalWidth)")
    assert widths
    assert min(widths) > 0
    targets = browser.execute_script("return [...document.querySelectorAll('nav a')].map((a) => a.hash.slice(1))")
    assert all(browser.find_elements("id", target) for target in targets)
    ends = browser.execute_script(ENDS)
    assert ends
    assert max(ends) < 900 or size[0] < 1280, "the answer stands on the first screen"


def test_a_click_on_a_head_sorts_by_number(browser: Any, report: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(report.as_uri())
    browser.find_element("css selector", "table.dataTable")
    head, values = browser.execute_script(COLUMN)
    assert values != sorted(values)
    waiting = WebDriverWait(browser, 10)
    for backwards in (False, True):
        head.click()
        order = "descending" if backwards else "ascending"
        waiting.until(lambda _, head=head, order=order: head.get_attribute("aria-sort") == order)
        head, values = browser.execute_script(COLUMN)
        assert values == sorted(values, reverse=backwards)
