"""The report: what it says, that hostile text stays text, and that a browser shows it at a desk and on a phone."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bayesmat import report
from bayesmat.design import Candidates, DesignRun, SamplerSummary, TargetSummary
from bayesmat.infer import Calibration

KNOWN = {
    "OCCO": "ethylene glycol", "OCCCO": "1,3-propanediol", "OCC(O)CO": "glycerol", "OCCOCCO": "diethylene glycol",
    "OCCOCCOCCO": "triethylene glycol", "CC(O)CO": "propylene glycol", "OCCCCO": "1,4-butanediol",
    "NCCO": "ethanolamine", "OCCNCCO": "diethanolamine", "OCCc1ccccc1": "2-phenylethanol",
    "O=C1OCCO1": "ethylene carbonate", "O=C1OCC(CO)O1": "glycerol carbonate", "CS(=O)C": "dimethyl sulfoxide",
    "O=C1CCCO1": "gamma-butyrolactone", "OCC(F)(F)F": "2,2,2-trifluoroethanol",
}  # fmt: skip
PARTS = ("OCCO{}", "OCC(O)C{}", "NCC(O)C{}", "O=C1OCC({})O1", "OCCOc1ccc({})cc1", "N#CCCOC{}", "CS(=O)(=O)CC{}")
TAILS = ("CO", "CCO", "CC(=O)N", "CCOC", "c2ccc(O)cc2", "C(F)F", "CC#N", "CCS", "CN3CCOCC3", "C(=O)OCCO")


def make_calibration(size: int = 360, label: str = "thermal conductivity", unit: str = "W/m/K") -> Calibration:
    rng = np.random.default_rng(size)
    scale = 2000.0 if unit == "K" else 1.0
    truth = scale * (0.15 + 0.04 * rng.gamma(2.0, 0.6, size))
    sd = scale * (0.008 + 0.01 * rng.random(size))
    observed = truth + 1.1 * sd * rng.standard_normal(size)
    levels = np.array([math.erf(z / math.sqrt(2)) for z in (observed - truth) / sd])
    return Calibration(
        label=label, unit=unit, kind="leave-one-out" if size < 1000 else "held-out", observed=observed, mean=truth,
        lower90=truth - 1.645 * sd, upper90=truth + 1.645 * sd, pit=(1 + levels) / 2, nll=-2.61, crps=0.0071 * scale,
    )  # fmt: skip


def make_run(num_candidates: int = 24, num_properties: int = 3, **changes: object) -> DesignRun:
    """A run with the numbers a real one has; `changes` replace fields."""
    rng = np.random.default_rng(5)
    targets = (
        TargetSummary("thermal_conductivity", "thermal conductivity", "W/m/K", "at least 0.19 W/m/K", 0.19,
                      math.inf),
        TargetSummary("boiling_point", "boiling point", "K", "between 450 and 520 K", 450.0, 520.0),
        TargetSummary("viscosity", "viscosity", "Pa s", "at most 0.02 Pa s", -math.inf, 0.02),
    )[:num_properties]  # fmt: skip
    prior = {
        "thermal_conductivity": 0.145 + 0.02 * rng.standard_normal(4000),
        "boiling_point": 460 + 80 * rng.standard_normal(4000),
        "viscosity": np.exp(-6.0 + 1.6 * rng.standard_normal(4000)),
    }
    posterior = {
        "thermal_conductivity": 0.196 + 0.009 * rng.standard_normal(4000),
        "boiling_point": 484 + 17 * rng.standard_normal(4000),
        "viscosity": np.exp(-4.7 + 0.5 * rng.standard_normal(4000)),
    }
    names = [target.property for target in targets]
    temperatures = np.array([0, 0.012, 0.031, 0.07, 0.13, 0.22, 0.36, 0.58, 0.86, 1.0])
    fields = {
        "title": "Coolants for immersion-cooled servers",
        "description": "Liquids that carry heat well, stay liquid where servers run, and can be pumped.",
        "targets": targets,
        "candidates": _candidates(num_candidates, names, posterior, rng),
        "prior_mean": {name: prior[name] for name in names},
        "posterior_mean": {name: posterior[name] for name in names},
        "prior_p_hit": 0.00208,
        "posterior_p_hit": 0.6349,
        "sampler": SamplerSummary(
            num_particles=4096, num_distinct=1873, num_ancestors=214, converged=True,
            status="The posterior was reached.",
            log_evidence=-6.175, temperatures=temperatures, ess=np.full(9, 2048.0) + 60 * rng.standard_normal(9),
            acceptance=np.linspace(0.42, 0.11, 9),
        ),
        "calibrations": (make_calibration(), make_calibration(21600, "boiling point", "K")),
        "posterior": {"log_p_hit": np.log(np.full(4096, 0.63))},
        "settings": {"num_particles": 4096, "seed": 0, "targets": [target.text for target in targets]},
        "versions": {"bayesmat": "0.1.0", "jax": "0.8.1", "rdkit": "2025.09.1"},
        "timings": {"fit": 41.2, "sample": 187.0, "report": 0.9},
        "warnings": (),
    }  # fmt: skip
    return DesignRun(**(fields | changes))


def _candidates(count: int, names: list[str], posterior: dict[str, np.ndarray], rng: np.random.Generator) -> Candidates:
    new = [part.format(tail) for tail in TAILS for part in PARTS]
    pool = [smiles for pair in zip(KNOWN, new, strict=False) for smiles in pair] + new[len(KNOWN) :]
    smiles = tuple(pool[:count])
    known = tuple(text in KNOWN for text in smiles)
    sd = {"thermal_conductivity": 0.0113, "boiling_point": 14.2, "viscosity": 0.0031}
    p_hit = np.sort(0.25 + 0.73 * rng.random(len(smiles)))[::-1]
    return Candidates(
        smiles=smiles,
        weight=0.041 * np.exp(-0.12 * np.arange(len(smiles))),
        p_hit=p_hit,
        log_p_hit=np.log(p_hit),
        mean={name: posterior[name][: len(smiles)] for name in names},
        sd={name: sd[name] * (0.7 + rng.random(len(smiles))) for name in names},
        p_hit_each={name: 0.5 + 0.5 * rng.random(len(smiles)) for name in names},
        known=known,
        name=tuple(KNOWN.get(text, "") for text in smiles),
        nearest_known=tuple(text if flag else "OCCOCCO" for text, flag in zip(smiles, known, strict=True)),
        nearest_name=tuple(KNOWN.get(text, "diethylene glycol") for text in smiles),
        similarity=np.where(known, 1.0, 0.3 + 0.4 * rng.random(len(smiles))),
        sa_score=1.4 + 2.5 * rng.random(len(smiles)),
    )


HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> javascript:alert(1) $x^2$ & http://evil.example/a.js"
)


def hostile_run() -> DesignRun:
    run = make_run(6)
    c = run.candidates
    candidates = dataclasses.replace(
        c,
        smiles=(HOSTILE, *c.smiles[1:]),
        name=(HOSTILE,) * 6,
        nearest_name=(HOSTILE,) * 6,
        nearest_known=(HOSTILE,) * 6,
        mean=c.mean | {HOSTILE: np.ones(6)},
        sd=c.sd | {HOSTILE: np.ones(6)},
    )
    return dataclasses.replace(
        run,
        title=HOSTILE,
        description=HOSTILE,
        targets=tuple(dataclasses.replace(t, label=HOSTILE, unit=HOSTILE, text=HOSTILE) for t in run.targets),
        candidates=candidates,
        sampler=dataclasses.replace(run.sampler, status=HOSTILE, converged=False),
        calibrations=tuple(dataclasses.replace(c, label=HOSTILE, unit=HOSTILE) for c in run.calibrations),
        settings={HOSTILE: HOSTILE},
        versions={HOSTILE: HOSTILE, "bayesmat": HOSTILE},
        timings={HOSTILE: 1.0},
        warnings=(HOSTILE,),
    )


def failed_run() -> DesignRun:
    """No particle of the prior had a chance: no candidates, no steps, no evidence, no calibration."""
    run = make_run(0, num_properties=1)
    sampler = dataclasses.replace(
        run.sampler, num_distinct=0, num_ancestors=0, converged=False, status="No particle is compatible.",
        log_evidence=-math.inf, temperatures=np.zeros(1), ess=np.zeros(0), acceptance=np.zeros(0),
    )  # fmt: skip
    return dataclasses.replace(
        run, sampler=sampler, calibrations=(), description="", warnings=(sampler.status,), prior_p_hit=0.0,
        posterior_p_hit=math.nan, posterior_mean={"thermal_conductivity": np.zeros(0)}, settings={}, timings={},
    )  # fmt: skip


def stopped_run() -> DesignRun:
    run = make_run(9, num_properties=2)
    sampler = dataclasses.replace(
        run.sampler, converged=False, status="Too many temperatures.", log_evidence=-3.2,
        temperatures=np.array([0.0, 0.2, 0.58]), ess=np.full(2, 2048.0), acceptance=np.array([0.3, np.nan]),
    )  # fmt: skip
    candidates = dataclasses.replace(
        run.candidates, sa_score=np.full(9, np.nan), sd={n: np.zeros(9) for n in run.prior_mean}
    )
    return dataclasses.replace(run, sampler=sampler, candidates=candidates, warnings=(sampler.status,))


RUNS = {"usual": make_run, "hostile": hostile_run, "failed": failed_run, "stopped": stopped_run}


class Page(HTMLParser):
    """Elements with their attributes, the text outside style sheets, and whether every element is closed."""

    VOID = {"meta", "img", "br", "hr", "link", "input"}

    def __init__(self, source: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"[ \n]+", " ", "".join(self.pieces))


@pytest.mark.parametrize("name", RUNS)
def test_page_is_closed_and_reaches_for_nothing(name):
    source = report.to_html(RUNS[name]())
    page = Page(source)
    assert page.open == []
    allowed = set("html head meta title style body header main footer nav section article h1 h2 h3 p a b ul li dl dt "
                  "dd div span i sup table thead tbody tr th td figure figcaption details summary svg defs g path use "
                  "text lineargradient image clippath rect tspan".split())  # fmt: skip
    assert {tag for tag, _ in page.elements} <= allowed
    for tag, attributes in page.elements:
        for key, value in attributes.items():
            assert not key.startswith("on"), (tag, key)
            if key in {"src", "href", "xlink:href", "action", "data", "poster", "srcset"}:
                assert value.startswith(("#", "data:image/png;base64,")), (tag, key, value)
            if key == "style":
                assert not re.search(r"url\((?!#)", value)
    assert not re.search(r"url\((?!#)|@import", "".join(re.findall(r"<style>.*?</style>", source, flags=re.DOTALL)))
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@pytest.mark.parametrize("name", RUNS)
def test_page_is_well_formed_for_readers(name):
    page = Page(report.to_html(RUNS[name]()))
    tags = [tag for tag, _ in page.elements]
    assert tags.count("h1") == tags.count("title") == tags.count("main") == 1
    assert ("html", {"lang": "en"}) in page.elements
    assert any(a.get("name") == "viewport" for _, a in page.elements)
    assert all(a["role"] == "img" and a["aria-label"] for tag, a in page.elements if tag == "svg")
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    links = {a["href"][1:] for _, a in page.elements if (a.get("href") or "").startswith("#")}
    assert links <= set(identifiers)
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", page.text, flags=re.IGNORECASE)


def test_hostile_text_is_shown_as_text():
    source = report.to_html(hostile_run())
    assert "<script" not in source and "<img" not in source
    page = Page(source)
    title = page.text.index(HOSTILE)  # unescaped by the parser: the reader sees what the data said
    assert title >= 0 and html.escape(HOSTILE, quote=True) in source
    assert page.text.count(HOSTILE) > 40


def test_the_answer_is_there():
    page = Page(report.to_html(make_run())).text.replace("\u00a0", " ")
    for words in ("1873 distinct molecules", "63 %", "0.21 %", "a factor of 310", "310 ×", "−6.17", "Coolants for"):
        assert words in page
    assert "thermal conductivity at least 0.19 W/m/K" in page
    assert "ethylene glycol" in page and "nearest known, similarity 0." in page and "diethylene glycol" in page
    assert "inside the 90 % interval" in page and "leave-one-out" in page and "21\u202f600" in page


def test_candidates_carry_their_numbers():
    run = make_run(3)
    page = Page(report.to_html(run)).text.replace("\u00a0", " ")
    c = run.candidates
    for name, unit, decimals in (("boiling_point", "K", 0), ("thermal_conductivity", "W/m/K", 3)):
        mean, sd = c.mean[name][0], c.sd[name][0]
        decimals += int(decimals == 3 and sd < 0.00995)
        assert f"{mean:.{decimals}f} ± {sd:.{decimals}f} {unit}" in page
    assert f"{100 * c.p_hit[0]:.0f} %" in page
    assert page.count("known ethylene") == 1


def test_only_the_best_are_drawn_and_the_file_stays_small(tmp_path):
    path = report.write(make_run(85), tmp_path / "deep" / "report.html")
    page = Page(path.read_text(encoding="utf-8"))
    drawn = [a["aria-label"] for tag, a in page.elements if tag == "svg" and a["aria-label"].startswith("structure of")]
    assert len(drawn) == 60 and "The first 60 of" in page.text
    assert path.stat().st_size < 2_000_000


def test_same_run_same_bytes(tmp_path):
    first = report.write(make_run(), tmp_path / "a.html").read_bytes()
    assert report.write(make_run(), tmp_path / "b.html").read_bytes() == first


def test_failed_run_says_what_to_do():
    page = Page(report.to_html(failed_run())).text
    assert "The run found no molecule" in page
    assert page.count("No particle is compatible.") == 2  # as a warning with advice, and beside the sampler's paths
    assert "Widen the targets" in page and "no calibration" in page and "−∞" in page


def test_stopped_run_warns_that_the_request_was_softened():
    page = Page(report.to_html(stopped_run())).text
    assert "β = 0.58" in page and "softer request" in page and "log evidence so far" in page


def test_overconfident_model_is_named():
    calibration = make_calibration()
    narrow = dataclasses.replace(calibration, pit=np.clip(0.5 + 1.8 * (calibration.pit - 0.5), 0, 1))
    assert "thermal conductivity is overconfident" in report.to_html(make_run(2, calibrations=(narrow,)))
    assert "Read this first" not in report.to_html(make_run(2, calibrations=(calibration,)))


def test_hit_too_rare_for_a_float_is_still_told():
    sampler = dataclasses.replace(make_run(2).sampler, log_evidence=-921.0)
    source = report.to_html(make_run(2, prior_p_hit=0.0, sampler=sampler))
    assert "10<sup>−400</sup>" in source


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WRAPPER = """<!doctype html><body><script>
onload = () => {
  const found = [...document.querySelectorAll('iframe')].map(frame => {
    const root = frame.contentDocument.documentElement, width = root.clientWidth;
    const clipped = [...frame.contentDocument.querySelectorAll('body *')].filter(e =>
      e.getBoundingClientRect().right > width + 1 && !e.closest('thead,svg'));
    const table = frame.contentDocument.querySelector('.candidates tbody tr');
    return {scroll: root.scrollWidth, width, height: root.scrollHeight,
            clipped: clipped.map(e => e.outerHTML.slice(0, 90)),
            row: table ? getComputedStyle(table).display : '',
            drawn: frame.contentDocument.querySelectorAll('svg').length};
  });
  document.body.textContent = 'FOUND' + JSON.stringify(found) + 'END';
};
</script>FRAMES"""


def layout(folder: Path, page_source: str, *widths: int) -> list[dict]:
    """What a browser makes of the page in frames of some widths (its own window cannot be narrower than 500)."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser to render the report with: none of {', '.join(BROWSERS)} is on the path")
    source = html.escape(page_source, quote=True)
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{source}"></iframe>' for width in widths)
    page = folder / "frames.html"
    page.write_text(WRAPPER.replace("FRAMES", frames), encoding="utf-8")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
             f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000", "--dump-dom")  # fmt: skip
    done = subprocess.run([browser, *flags, page.as_uri()], capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r"FOUND(.*)END", done.stdout, flags=re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("name", RUNS)
def test_browser_needs_no_sideways_scrolling(tmp_path, name):
    run = RUNS[name]()
    phone, desk = layout(tmp_path, report.to_html(run), 390, 1280)
    for seen in (phone, desk):
        assert seen["clipped"] == [] and seen["scroll"] <= seen["width"]
        assert seen["height"] > 900 and seen["drawn"] >= 4
    if run.candidates.smiles:
        assert (phone["row"], desk["row"]) == ("grid", "table-row")
