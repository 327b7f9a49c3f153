"""The plan viewer, in Python and in a real browser.

Without Chromium (no other package is needed) the tests in the browser are skipped.
"""

import json
import re
import shutil
import time

import numpy as np
import pytest
import torch
from chromium import Browser

from forethought import plan_file
from forethought.envs.maze_layout import LAYOUTS
from forethought.figures import parting_step
from forethought.report import write_html, write_report
from forethought.types import Plan, Trajectory
from forethought.viewer import viewer_data, viewer_html

LAYOUT = LAYOUTS["umaze"]
HORIZON, STEPS, CANDIDATES, ARRIVAL = 12, 4, 5, 40


def along(n):
    """(n, 2): through the U-Maze from its upper left to its lower left corner."""
    corners = np.array([[0.8, 0.8], [0.8, 2.8], [2.8, 2.8], [2.8, 0.8]])
    where = np.linspace(0, 3, n)
    return np.stack([np.interp(where, range(4), corners[:, k]) for k in (0, 1)], axis=1)


def full_plan(**changes):
    """A plan.json: the run leaves the imagined path at step 21 and comes back at the end."""
    random = np.random.default_rng(0)
    final = along(HORIZON) + 0.1 * random.normal(size=(CANDIDATES, HORIZON, 2))
    frames = []
    for step in range(STEPS + 1):
        noise = 1 - step / STEPS
        samples = final + noise * random.normal(size=final.shape)
        frame = {"level": 10 * (STEPS - step) if step < STEPS else -1, "samples": samples.tolist()}
        if step:
            frame["estimates"] = (final + 0.2 * noise).tolist()
        frames.append(frame)
    imagined = along(ARRIVAL + 1)
    executed = imagined.copy()
    executed[21:35, 0] -= 0.6
    return {
        "kind": "plan",
        "recipe": "diffuser/maze-umaze",
        "layout": "\n".join(LAYOUT.rows),
        "start": [0.8, 0.8],
        "goal": [2.8, 0.8],
        "arrival": ARRIVAL,
        "times": np.linspace(0, ARRIVAL, HORIZON).astype(int).tolist(),
        "chosen": 0,
        "candidates": [{"drawn": k, "value": -float(k)} for k in range(CANDIDATES)],
        "denoising": frames,
        "strip": [{"level": f["level"], "positions": f["samples"][0]} for f in frames],
        "imagined": imagined.tolist(),
        "executed": executed.tolist(),
        "by_clock": True,
        "parting": 21,
        "success": True,
    } | changes


def old_plan():
    """As `forethought plan` wrote it before the viewer: one candidate's estimates."""
    new = full_plan()
    strip = [
        {"level": 10 * (STEPS - k), "positions": new["strip"][k]["positions"]} for k in range(STEPS)
    ]
    rows = np.concatenate([along(HORIZON), np.zeros((HORIZON, 2))], axis=1).tolist()
    kept = ("kind", "recipe", "layout", "start", "goal", "arrival", "times", "executed", "success")
    return {key: new[key] for key in kept} | {
        "strip": strip,
        "candidates": [],
        "observations": rows,
    }


def trajectory(observations):
    n, horizon, _ = observations.shape
    return Trajectory(
        observations=observations,
        actions=torch.zeros(n, horizon, 0),
        times=torch.arange(horizon),
    )


def drawn_plan(n_candidates, values):
    candidates = torch.randn(1, n_candidates, 6, 4, generator=torch.Generator().manual_seed(0))
    best = int(np.nanargmax(values))
    return candidates[0], Plan(
        trajectory=trajectory(candidates[:, best]),
        candidates=Trajectory(
            observations=candidates,
            actions=torch.zeros(1, n_candidates, 6, 0),
            times=torch.arange(6),
        ),
        stats={"values": torch.tensor([values])},
    )


def test_candidates_are_kept_best_first_with_every_step_of_theirs():
    final, plan = drawn_plan(3, [0.5, 2.0, -1.0])
    record = plan_file._Recorder()
    for level in (9, 4):
        record(level, trajectory(final + level), trajectory(final + 10 * level))
    data = plan_file.candidates_and_denoising(plan, record.steps)
    assert [c["drawn"] for c in data["candidates"]] == [1, 0, 2] and data["chosen"] == 0
    assert [c["value"] for c in data["candidates"]] == [2.0, 0.5, -1.0]
    frames, order = data["denoising"], [1, 0, 2]
    assert [sorted(f) for f in frames] == [["level", "samples"]] + 2 * [
        ["estimates", "level", "samples"]
    ]
    assert [f["level"] for f in frames] == [9, 4, -1]
    positions = final[order, :, :2].numpy()
    np.testing.assert_allclose(frames[0]["samples"], positions + 90, atol=1e-3)
    np.testing.assert_allclose(frames[1]["samples"], positions + 40, atol=1e-3)
    np.testing.assert_allclose(frames[1]["estimates"], positions + 9, atol=1e-3)
    np.testing.assert_allclose(frames[2]["estimates"], positions + 4, atol=1e-3)
    np.testing.assert_allclose(frames[2]["samples"], positions, atol=1e-3)
    assert data["strip"][2] == {"level": -1, "positions": frames[2]["samples"][0]}


def test_many_candidates_and_steps_are_thinned_but_the_ends_stay():
    values = list(np.linspace(0.0, 1.0, 50))
    final, plan = drawn_plan(50, values)
    steps = [(level, None, final[..., :2].numpy()) for level in range(99, -1, -1)]
    data = plan_file.candidates_and_denoising(plan, steps)
    assert [c["drawn"] for c in data["candidates"]] == list(range(49, 17, -1))
    assert len(data["denoising"]) == plan_file.MAX_FRAMES
    assert data["denoising"][0]["level"] == 98 and data["denoising"][-1]["level"] == -1
    assert np.shape(data["denoising"][5]["estimates"]) == (32, 6, 2)


def test_values_that_are_missing_or_infinite_stay_legal_json():
    _, plan = drawn_plan(3, [0.5, -np.inf, 0.2])
    data = plan_file.candidates_and_denoising(plan, [])
    assert [c["value"] for c in data["candidates"]] == [0.5, 0.2, None]
    alone = Plan(trajectory=plan.trajectory)
    data = plan_file.candidates_and_denoising(alone, [])
    assert data["candidates"] == [{"drawn": 0, "value": None}] and len(data["denoising"]) == 1
    json.dumps(data, allow_nan=False)


def test_old_plan_files_are_shown_with_their_one_candidate():
    data = viewer_data(old_plan())
    assert [frame["label"] for frame in data["frames"]][::3] == ["noise level 40", "the plan"]
    assert len(data["candidates"]) == 1 and data["chosen"] == 0
    imagined = np.array(data["imagined"])  # between the rows, a straight line
    np.testing.assert_allclose(imagined[[0, -1]], [[0.8, 0.8], [2.8, 0.8]], atol=1e-3)
    assert data["parting"] == parting_step(data["executed"], imagined) is not None
    assert viewer_html(old_plan() | {"layout": ""}) == ""


def test_pursued_paths_are_compared_with_their_nearest_point():
    hurried = along(21)  # twice as fast as imagined, on the imagined path
    late = full_plan(executed=hurried.tolist())
    assert viewer_data(late)["parting"] is not None and viewer_data(late)["beside"] == []
    data = viewer_data(late | {"by_clock": False})
    assert data["parting"] is None
    np.testing.assert_allclose(data["beside"], hurried, atol=2e-3)
    away = hurried + [[0.6, 0.0]]
    assert viewer_data(late | {"by_clock": False, "executed": away.tolist()})["parting"] == 0


def test_data_cannot_end_its_script_element():
    hostile = "</script><script>alert(1)</script><!--<script>"
    page = viewer_html(full_plan(recipe=hostile, extra=hostile))
    assert page.count("<script") == page.count("</script>") == 1 and "<!--" not in page
    block = re.search(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    assert json.loads(block[1])["recipe"] == hostile


def test_page_allows_its_own_script_alone_and_keeps_the_strip_without_it(tmp_path):
    page = write_html([full_plan()], tmp_path / "page.html", title="A plan").read_text()
    assert "default-src 'none'" in page and "script-src 'sha256-" in page
    assert not re.search(r"https?://|<link|@import|url\(", page)
    strip = re.search(r"<div data-without-script><figure>.*?</figure></div>", page, re.DOTALL)
    assert 'src="data:image/png' in strip[0]
    assert re.search(r'<div class="viewer"[^>]* hidden>', page)
    assert page.count("<script>") == 1
    assert "<script>" not in write_html([], tmp_path / "page.html", title="Nothing").read_text()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("Chromium is not installed")
    browser = Browser(executable, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    results = [full_plan(), old_plan() | {"recipe": "</script><b>old</b>"}]
    return write_report(results, tmp_path_factory.mktemp("page"))


def drawn(browser, what, viewer=0):
    queries = {
        "held": "[...v.querySelectorAll('.held circle')].map(c => [c.cy, c.cx]"
        ".map(a => a.baseVal.value))",
        "others": "v.querySelector('.others').innerHTML",
        "ball": "['cy', 'cx'].map(a => v.querySelector('.ball')[a].baseVal.value)",
        "ghost": "['cy', 'cx'].map(a => v.querySelector('.ghost')[a].baseVal.value)",
        "step": "v.querySelector('.step-number').value + v.querySelector('.step-label').value",
        "time": "v.querySelector('.time-number').value",
        "distance": "v.querySelector('.distance').value",
        "execution": "v.querySelector('.paths').getAttribute('opacity')",
    }
    return browser.js(f"(v => {queries[what]})(document.querySelectorAll('.viewer')[{viewer}])")


def move(browser, slider, value):
    browser.js(
        f"(s => {{ s.value = {value}; s.dispatchEvent(new Event('input', {{bubbles: true}}));"
        " s.dispatchEvent(new Event('change', {bubbles: true})) })"
        f"(document.querySelector('.{slider}'))"
    )


def test_page_opens_offline_without_complaints_and_replaces_the_strips(browser, page):
    browser.open(page.as_uri())
    assert browser.js("document.querySelectorAll('.viewer:not([hidden]) .maze .walls').length") == 2
    visible = "[...document.querySelectorAll('figure')].filter(f => f.offsetHeight).length"
    assert browser.js(visible) == 0
    assert browser.js("document.querySelectorAll('main b').length") == 5 + 1  # no markup of data's
    assert browser.complaints() == []


def test_slider_moves_all_candidates_from_noise_to_the_plan(browser, page):
    browser.open(page.as_uri())
    plan = full_plan()
    np.testing.assert_allclose(
        drawn(browser, "held"), plan["denoising"][-1]["samples"][0], atol=2e-3
    )
    assert drawn(browser, "step") == f"{STEPS} of {STEPS}the plan"
    before = drawn(browser, "others")
    move(browser, "step", 0)
    wanted = plan["denoising"][0]["samples"][0]
    end = time.monotonic() + 8
    while not np.allclose(drawn(browser, "held"), wanted, atol=2e-3):  # it glides there
        assert time.monotonic() < end, "the candidate never arrives at the noise"
    assert drawn(browser, "step") == f"0 of {STEPS}pure noise"
    assert drawn(browser, "others") != before
    assert drawn(browser, "execution") == "0"  # nothing is executed before the plan is there
    assert "step=0" in browser.js("location.hash")
    assert browser.complaints() == []


def test_link_opens_the_view_it_names(browser, page):
    plan = full_plan()
    browser.open(page.as_uri() + "#plan=1&step=3&candidate=2&show=estimates")
    np.testing.assert_allclose(
        drawn(browser, "held"), plan["denoising"][3]["estimates"][1], atol=2e-3
    )
    browser.open(page.as_uri() + "#plan=2&step=1&time=7")
    np.testing.assert_allclose(
        drawn(browser, "held", viewer=1), old_plan()["strip"][1]["positions"], atol=2e-3
    )
    browser.open(page.as_uri() + "#step=999&candidate=-3&time=nonsense&show=what")
    assert drawn(browser, "step") == f"{STEPS} of {STEPS}the plan"
    assert browser.complaints() == []


def test_ball_and_ghost_follow_the_time(browser, page):
    plan = full_plan()
    browser.open(page.as_uri())
    move(browser, "time", 21)
    np.testing.assert_allclose(drawn(browser, "ball"), plan["executed"][21], atol=2e-3)
    np.testing.assert_allclose(drawn(browser, "ghost"), plan["imagined"][21], atol=2e-3)
    assert drawn(browser, "distance") == "0.60 apart"
    move(browser, "time", 5)
    assert drawn(browser, "distance") == "0.00 apart"
    browser.js("document.querySelector('p.parting button').click()")
    assert drawn(browser, "time") == f"21 of {ARRIVAL}"
    assert "for 14 of 41" in browser.js("document.querySelector('p.parting').textContent")
    marker = "getComputedStyle(document.querySelector('.movers .part')).visibility"
    assert browser.js(marker) == "visible"
    browser.js("document.querySelector('.show-executed').click()")
    assert browser.js(marker) == "hidden"
    assert browser.complaints() == []


def test_ghost_of_a_pursued_path_is_its_nearest_point(browser, tmp_path):
    hurried = along(21) + [[0.0, 0.02]]
    plan = full_plan(executed=hurried.tolist(), by_clock=False)
    page = write_html([plan], tmp_path / "pursued.html", title="Pursued")
    browser.open(page.as_uri())
    move(browser, "time", 3)
    np.testing.assert_allclose(drawn(browser, "ball"), hurried[3], atol=2e-3)
    np.testing.assert_allclose(drawn(browser, "ghost"), hurried[3], atol=0.03)
    assert "nearest point" in browser.js("document.querySelector('p.parting').textContent")
    assert "Never more than 0.5 apart" in browser.js(
        "document.querySelector('p.parting').textContent"
    )
    assert browser.complaints() == []


def test_candidates_are_chosen_by_keyboard_and_hidden_by_the_box(browser, page):
    plan = full_plan()
    browser.open(page.as_uri())
    browser.js("document.querySelector('.list input:checked').focus()")
    for kind in ("keyDown", "keyUp"):
        key = {"key": "ArrowDown", "code": "ArrowDown", "windowsVirtualKeyCode": 40}
        browser.call("Input.dispatchKeyEvent", type=kind, **key)
    np.testing.assert_allclose(
        drawn(browser, "held"), plan["denoising"][-1]["samples"][1], atol=2e-3
    )
    label = "document.activeElement.getAttribute('aria-label')"
    assert browser.js(label) == "candidate 2, value −1.000"
    assert 'd="M' in drawn(browser, "others")
    browser.js("document.querySelector('.all').click()")
    assert 'd="M' not in drawn(browser, "others")
    unnamed = "[...document.querySelectorAll('input, button')].filter(e => "
    unnamed += "!(e.closest('label') || e.ariaLabel || e.textContent.trim())).length"
    assert browser.js(unnamed) == 0


def test_play_runs_to_the_end(browser, page):
    browser.open(page.as_uri() + "#step=3")
    browser.js("document.querySelector('[data-play=step]').click()")
    browser.wait(f"document.querySelector('.step').value === '{STEPS}'")
    browser.wait("document.querySelector('[data-play=step]').textContent === '▶'")
    assert browser.complaints() == []


def test_page_fits_a_phone(browser, page):
    metrics = {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.call("Emulation.setDeviceMetricsOverride", **metrics)
    browser.open(page.as_uri())
    assert browser.js("document.documentElement.scrollWidth") <= 375
    browser.call("Emulation.clearDeviceMetricsOverride")


def test_without_javascript_the_strip_is_seen(browser, page):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page.as_uri())
        heights = "[...document.querySelectorAll('{}')].map(e => e.offsetHeight)"
        assert min(browser.js(heights.format("figure"))) > 50
        assert browser.js(heights.format(".viewer")) == [0, 0]
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
