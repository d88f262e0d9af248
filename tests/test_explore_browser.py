"""00_explore as a person uses it: a real JupyterLab, in a headless Chromium.

Playwright is no part of the environment: `./reproduce test --browser` installs it, and wants Chromium (`apt-get install
chromium`) or Chrome. Where nothing is trained, the notebook trains its tiny pair first, which takes a minute more.
"""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image

from lib import ROOT

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
PATIENCE = 900_000  # milliseconds; a machine may be busy, and models may have to be trained
COLOURS = {"baseline": (0, 114, 178), "attention": (213, 94, 0)}
FIGURE = ".explore img[alt*=baseline]"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        options = {"args": ["--no-sandbox"]} if os.geteuid() == 0 else {}
        if own := shutil.which("chromium") or shutil.which("google-chrome"):
            options["executable_path"] = own
        try:
            browser = driver.chromium.launch(**options)
        except playwright.Error as error:
            if os.environ.get("BROWSER") == "required":
                raise
            pytest.skip(f"Chromium does not start: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a JupyterLab with a copy of the committed notebook, and settings of its own."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "work").mkdir()
    shutil.copy(ROOT / "notebooks" / "00_explore.ipynb", folder / "work")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{name}": str(folder / name.lower()) for name in ("CONFIG_DIR", "RUNTIME_DIR")}
    own |= {
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "spaces"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--IdentityProvider.token=", f"--ServerApp.root_dir={folder / 'work'}", "--LabApp.news_url="]
    environment = os.environ | own | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert process.poll() is None, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5)
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def page(server, browser):
    """The notebook on a laptop's screen, run from top to bottom."""
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    page.set_default_timeout(PATIENCE)
    page.mistakes = []
    page.on("pageerror", lambda error: page.mistakes.append(str(error)))
    page.goto(f"{server}/lab/tree/00_explore.ipynb")
    page.wait_for_function("document.querySelector('.jp-Toolbar-kernelName')?.innerText.startsWith('Python 3')")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
    begin = time.perf_counter()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    for question, answer in ((".jp-Dialog", "Select"), (".Toastify", "No")):  # which kernel, news: if it asks
        button = page.locator(question).get_by_role("button", name=answer, exact=True)
        page.wait_for_timeout(1000)
        if button.count():
            button.first.click()
    page.wait_for_selector(FIGURE)
    print(f"\nfrom 'Run All Cells' to the panel: {time.perf_counter() - begin:.1f} s")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
    page.locator(".explore").scroll_into_view_if_needed()
    yield page
    page.close()


def changed(page, selector, before, attribute="alt"):
    """Wait until an attribute of an element is another than before."""
    page.wait_for_function(
        "([s, a, b]) => { const e = document.querySelector(s); return e && e.getAttribute(a) !== b }",
        arg=[selector, attribute, before],
    )
    return page.get_attribute(selector, attribute)


def picture(page):
    """The figure as it is on the screen, float (h, w, 3)."""
    shot = page.locator(FIGURE).screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), float)


def length_of_bars(pixels, colour):
    """How many pixels are of a variant's full colour: its bars of the attacked image."""
    return (np.abs(pixels - colour).max(axis=-1) < 6).sum()


def errors(page):
    """What stands in red on the page, and the page's own mistakes; a progress bar that is done leaves blanks."""
    kinds = ("application/vnd.jupyter.error", "application/vnd.jupyter.stderr")
    said = [page.locator(f'[data-mime-type="{kind}"]').all_inner_texts() for kind in kinds]
    return [[text for text in texts if text.strip()] for texts in said] + page.mistakes


def move_slider(page, share):
    """Drag the handle of epsilon to a share of the slider's length."""
    page.locator(".explore .noUi-handle").scroll_into_view_if_needed()  # a look at the figure may have moved it away
    track, handle = (
        page.locator(".explore .noUi-target").bounding_box(),
        page.locator(".explore .noUi-handle"),
    )
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(track["x"] + share * track["width"], box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()


def bring(page, file):
    with page.expect_file_chooser() as chooser:
        page.locator(".explore .widget-upload").click()
    chooser.value.set_files(file)


def test_it_opens_whole_and_without_an_error(page):
    assert errors(page) == [[], []]
    assert page.locator(".explore .thumb").count() >= 6
    text = page.locator(".explore [role=status]").inner_text()
    assert re.search(r"baseline .+ → .+\nattention .+ → ", text)
    assert "phantom" in page.locator(".jp-OutputArea", has_text="profile").first.inner_text()
    # All within the screen: no control and no figure is cut off at the right.
    right = [page.locator(s).first.bounding_box() for s in (FIGURE, ".explore .widget-hbox", ".explore .widget-upload")]
    assert all(box["x"] + box["width"] <= 1366 for box in right)
    seen = picture(page)
    assert seen.std() > 30
    for colour in COLOURS.values():
        assert length_of_bars(seen, colour) > 50


def test_moving_epsilon_changes_what_is_said_and_shown(page):
    spent, said, seen = [], [page.get_attribute(FIGURE, "alt")], []
    for share in (0.02, 0.97, 0.5, 0.7):
        begin = time.perf_counter()
        move_slider(page, share)
        said.append(changed(page, FIGURE, said[-1]))
        spent.append(time.perf_counter() - begin)
        seen.append(picture(page))
    print("\nseconds from the move to the new figure: " + ", ".join(f"{s:.2f}" for s in spent))
    assert "stands" in said[1] or "wrong without" in said[1]
    assert said[2].count("fooled") + said[2].count("wrong without") == 2
    small, large = seen[0], seen[1]
    h, w = small.shape[0] // 3, small.shape[1] // 6
    clean, noise = np.s_[h // 4 : h, 10 : w - 10], np.s_[h // 4 : h, w + 20 : 2 * w - 10]
    assert np.abs(small[clean] - large[clean]).mean() < 1  # the clean image stays
    assert np.abs(small[noise] - large[noise]).mean() > 10  # the perturbation is another
    assert small[noise].std() > 20
    assert errors(page) == [[], []]


def test_other_controls_work_and_a_bad_file_is_one_sentence(page, tmp_path):
    page.get_by_role("button", name="Where does it fall?").click()
    page.wait_for_selector(".explore img[alt^=Outcome]")
    before = page.get_attribute(FIGURE, "src")
    page.locator(".explore .thumb").nth(3).click()
    before = changed(page, FIGURE, before, "src")
    assert page.locator(".explore img[alt^=Outcome]").count() == 0  # it was of the other image
    page.locator(".explore select").nth(3).select_option(index=2)  # another class than its own
    changed(page, FIGURE, before, "src")

    (tmp_path / "notes.png").write_text("not an image")
    bring(page, tmp_path / "notes.png")
    alert = page.wait_for_selector(".explore [role=alert]").inner_text()
    assert alert == "notes.png cannot be read as an image: choose a whole JPEG, PNG or TIFF file."
    mine = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype("uint8")
    Image.fromarray(mine).save(tmp_path / "mine.png")
    before = page.get_attribute(FIGURE, "src")
    bring(page, tmp_path / "mine.png")
    changed(page, FIGURE, before, "src")
    page.wait_for_selector(".explore [role=status]:has-text('mine.png, class not given')")
    asked = page.locator(".explore .widget-dropdown", has_text="its class").locator("select")
    assert asked.input_value() == "what each network says"
    assert errors(page) == [[], []]
