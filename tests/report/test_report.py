"""The page, its numbers and its files."""

import csv
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.collections import PathCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from overparam.claims.estimand import Difference, Every, Point
from overparam.report import latex, tables, written
from overparam.report.figures.effects import effects_figure
from overparam.report.figures.svg import inline, to_svg
from overparam.report.figures.sweep import PANELS, draw_panel, legend_keys, level_places, sweep_figure
from overparam.report.render import bits, render
from tests.report.made_up import result, smoke

EVIL = '<script>alert("x")</script> & co'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two studies, the second without runs."""
    empty = result(missing=True)
    second = replace(empty, study=empty.study.model_copy(update={"name": "second"}))
    return render([result(), second], tmp_path_factory.mktemp("report")).parent


class Outline(HTMLParser):
    """Open tags must close, ids must be unique, and nothing may be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "path", "use", "rect", "link"):
            self.open.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def outlined(page: str, folder: Path) -> Outline:
    """The outline of a page that is well formed and whose links all lead somewhere: to an id of its own or a file."""
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    for link in outline.links:
        assert link[1:] in outline.ids if link.startswith("#") else (folder / link).is_file()
    return outline


def test_page_is_well_formed_and_fetches_nothing(folder: Path) -> None:
    outline = outlined((folder / "report.html").read_text(), folder)
    assert not [link for link in outline.links if re.match(r"\w+:|//", link)]


def test_every_verdict_is_in_the_summary_as_a_word(folder: Path) -> None:
    summary = (folder / "report.html").read_text().split("</nav>")[0]
    for verdict in result().verdicts:
        assert f"#batch_size.{written.stem(verdict.claim.name)}." in summary
        assert f'<span class="badge {verdict.verdict}">{verdict.verdict}</span>' in summary


def test_a_row_of_the_summary_opens_its_own_claim(tmp_path: Path) -> None:
    """Names that differ by signs only, and one of signs only, among claims of both kinds."""
    first, claims = result().verdicts[0], (("gap < 5", False), ("gap > 5", True), ("gap = 5", False), ("<>", True))
    changes = [{"name": n, "confirmatory": c, "sentence": f"Claim {i}"} for i, (n, c) in enumerate(claims)]
    verdicts = tuple(replace(first, claim=first.claim.model_copy(update=change)) for change in changes)
    page = render([replace(result(), verdicts=verdicts)], tmp_path).read_text()
    outlined(page, tmp_path)
    found = re.findall(r'<a href="#([^"]+)">(Claim \d)</a>', page.split("</nav>")[0])
    assert [sentence for _, sentence in found] == [f"Claim {i}" for i in (1, 3, 0, 2)]
    for anchor, sentence in found:
        assert f"<h4>{sentence}</h4>" in page.split(f'id="{anchor}"')[1].split("</article>")[0]


def test_a_theory_without_measurements_links_no_measurements(tmp_path: Path) -> None:
    study = result().study.model_copy(update={"theory": "least_squares"})
    page = render([replace(result(), study=study)], tmp_path).read_text()
    outlined(page, tmp_path)
    caption = next(part for part in page.split("<figcaption>") if "nothing is simulated" in part)
    assert "href" not in caption.split("</figcaption>")[0]


def test_same_results_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    render([result()], tmp_path / "a")
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 12
    first = [f for f in files if f.parent != Path()]
    assert all((tmp_path / "a" / f).read_bytes() == (folder / f).read_bytes() for f in first)
    pages = [(tmp_path / "a" / name).read_bytes() for name in ("report.html", "report.json")]
    render([result()], tmp_path / "a")
    assert pages == [(tmp_path / "a" / name).read_bytes() for name in ("report.html", "report.json")]


def test_what_people_write_is_escaped_everywhere(tmp_path: Path) -> None:
    found = result()
    design = found.study.designs["smoke"]
    evil = f"--> $\\frac{{{EVIL}"
    arms = tuple(arm.model_copy(update={"title": evil, "note": EVIL}) for arm in design.arms[:1])
    study = found.study.model_copy(
        update={
            "title": EVIL,
            "question": EVIL,
            "background": EVIL,
            "factor": evil,
            "designs": {"smoke": design.model_copy(update={"arms": arms, "claims": (), "caption": EVIL})},
        }
    )
    claim = found.verdicts[0].claim.model_copy(update={"sentence": EVIL, "paper_note": EVIL, "name": EVIL})
    verdicts = (replace(found.verdicts[0], claim=claim, reason=EVIL, caveats=(EVIL,)),)
    frame = found.frame.with_columns(environment=pl.lit(EVIL), data_digest=pl.lit(EVIL))
    hostile = replace(found, frame=frame, study=study, verdicts=verdicts, command=EVIL, notes=(EVIL,))
    page = render([hostile], tmp_path).read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert") >= 12
    assert "<script" not in (tmp_path / "figures" / "batch_size_sweep.svg").read_text()


TOLD = "machine x, torch 2, device cpu, threads 1, cpu Intel 6/143/8 avx512, settings default"


@pytest.mark.parametrize(
    ("environments", "mixed", "said", "unsaid"),
    [
        ([TOLD], [], "should give them too, which is not promised", "not recorded"),
        ([TOLD, "machine x, torch 2"], [], "The processor was not recorded", "should give"),
        (["machine x, torch 2, device cpu, threads 1"], [], "The processor was not recorded", "should give"),
        ([TOLD], ["threads 1 → 2"], "but for runs that went on in another", "not recorded"),
        ([TOLD.replace("device cpu", "device cuda")], [], "the model of the GPU is not recorded", "processor was not"),
    ],
)
def test_a_report_says_what_is_promised_of_bits(
    environments: list[str], mixed: list[str], said: str, unsaid: str
) -> None:
    text = bits(environments, mixed)
    assert said in text and unsaid not in text


def test_the_page_says_so_beside_the_environment(folder: Path) -> None:
    """Once: the second study has no runs, and nothing is promised of it."""
    page = (folder / "report.html").read_text()
    assert page.count("The processor was not recorded, and one of another kind gives other bits.") == 1


def test_a_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    found = result(missing=True)
    study = found.study.model_copy(update={"name": "../../out"})
    render([replace(found, study=study)], tmp_path / "a" / "b")
    assert {p.parent.name for p in tmp_path.rglob("out*")} == {"data"}


def test_json_holds_every_claim_without_nan(folder: Path) -> None:
    text = (folder / "report.json").read_text()
    record = json.loads(text)
    _, design = smoke()
    claims = record["studies"][0]["claims"]
    assert [claim["sentence"] for claim in claims] == [claim.sentence for claim in design.claims]
    assert {"verdict", "estimate", "lower", "upper", "n", "p", "p_holm", "paper_value", "margin"} <= claims[0].keys()
    assert "NaN" not in text
    assert json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) == text
    assert record["studies"][1]["cells"][0]["test_accuracy"] is None


@pytest.mark.parametrize("panel", [0, 1])
def test_csv_holds_the_numbers_that_are_drawn(folder: Path, panel: int) -> None:
    """Heights and ends of the bars, arm by arm."""
    found = result()
    with open(folder / "data" / "batch_size_sweep.csv") as stream:
        rows = list(csv.DictReader(stream))
    records = tables.cell_rows(found.study.designs["smoke"], found.frame)
    axes, metric = sweep_figure(records, found.frame, "batch size").axes[panel], PANELS[panel][0]
    bars = [container for container in axes.containers if isinstance(container, ErrorbarContainer)]
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    for bar, arm in zip(bars, arms, strict=True):
        mine = [row for row in rows if row["arm"] == arm]
        assert np.asarray(bar.lines[0].get_ydata()) == pytest.approx([100 * float(row[metric]) for row in mine])
        ends = [[100 * float(row[f"{metric}_{side}"]) for side in ("lower", "upper")] for row in mine]
        drawn = [np.asarray(segment)[:, 1] for segment in bar.lines[2][0].get_segments()]
        assert np.array(drawn) == pytest.approx(np.array(ends))


def test_runs_without_a_finite_number_are_not_drawn() -> None:
    found = result()
    gone = pl.when(pl.col("seed") < 2).then(None).when(pl.col("seed") < 4).then(math.nan).otherwise(pl.col("gap"))
    frame = found.frame.with_columns(gap=gone)
    records = tables.cell_rows(found.study.designs["smoke"], frame)
    dots = sweep_figure(records, frame, "batch size").axes[1].collections
    assert "nan" not in to_svg(sweep_figure(records, frame, "batch size"))
    scattered = [each for each in dots if isinstance(each, PathCollection)]
    finite = frame.filter((pl.col("status") == "ok") & pl.col("gap").is_finite())
    drawn = [np.asarray(each.get_offsets()) for each in scattered]
    assert sum(len(offsets) for offsets in drawn) == len(finite) > 0


def test_effects_are_drawn_at_their_numbers() -> None:
    verdicts = result().verdicts
    axes = effects_figure(verdicts).axes[0]
    bars = [each for each in axes.containers if isinstance(each, ErrorbarContainer)]
    ends = [np.asarray(bar.lines[2][0].get_segments()[0])[:, 0] for bar in bars]
    expected = [[100 * v.interval.lower, 100 * v.interval.upper] for v in reversed(verdicts)]
    assert np.array(ends) == pytest.approx(np.array(expected))
    assert [text.get_text() for text in axes.texts] == [v.verdict for v in reversed(verdicts)]


def test_keys_tell_arms_apart_without_colour() -> None:
    found = result()
    keys = legend_keys(tables.cell_rows(found.study.designs["smoke"], found.frame))
    assert len({(key.get_marker(), str(key.get_linestyle())) for key in keys}) == len(keys)


def test_inlined_figures_share_neither_ids_nor_styles() -> None:
    text = '<svg><style>*{x}</style><!-- n --><g id="a"/><use xlink:href="#a"/><g clip-path="url(#a)"/></svg>'
    assert inline(text, "s") == '<svg><g id="s-a"/><use xlink:href="#s-a"/><g clip-path="url(#s-a)"/></svg>'


def test_failed_runs_are_counted_and_kept_out_of_the_primary_estimate(folder: Path) -> None:
    found = result()
    row = tables.cell_rows(found.study.designs["smoke"], found.frame)[0]
    mine = found.frame.filter((pl.col("arm") == "equal_epochs") & (pl.col("level") == "8"))
    ok = mine.filter(pl.col("status") == "ok")["test_accuracy"]
    assert (row["n_ok"], row["n_all"], row["diverged"]) == (4, 5, 1)
    assert row["test_accuracy"] == pytest.approx(sum(ok) / 4)
    assert row["test_accuracy_all_runs"] == pytest.approx(sum(mine["test_accuracy"]) / 5)
    page = (folder / "report.html").read_text()
    assert "1 of 5 runs diverged" in page
    assert f"{100 * sum(ok) / 4:.2f}" in page


def test_a_study_without_runs_says_so(folder: Path, tmp_path: Path) -> None:
    assert (folder / "report.html").read_text().count("No finished runs yet") == 1
    assert not (folder / "figures" / "second_sweep.svg").exists()
    nothing = replace(result(missing=True), frame=result().frame.clear(), verdicts=())
    assert "No finished runs yet" in render([nothing], tmp_path).read_text()


def test_a_loss_is_not_written_in_points(tmp_path: Path) -> None:
    found = result()
    verdict = found.verdicts[0]
    estimand = verdict.claim.estimand.model_copy(update={"metric": "test_loss"})
    claim = verdict.claim.model_copy(update={"estimand": estimand, "margin": 0.125})
    interval = replace(verdict.interval, estimate=-0.25, lower=-0.5, upper=0.0)
    page = render([replace(found, verdicts=(replace(verdict, claim=claim, interval=interval),))], tmp_path).read_text()
    assert "−0.250" in page
    assert "−25.00" not in page
    assert "−0.250 & {[}" not in page
    assert r"$-$0.250 & {[}$-$0.500" in (tmp_path / "data" / "batch_size_verdicts.tex").read_text()


def test_seeds_are_those_of_the_table_not_of_the_preset(tmp_path: Path) -> None:
    found = result()
    fewer = replace(found, frame=found.frame.filter(pl.col("seed") < 2))
    assert "seeds 0, 1." in render([fewer], tmp_path).read_text()


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_contrasts_with_its_ground(folder: Path, scheme: int) -> None:
    """WCAG AA: 4.5 to 1, in the light and in the dark scheme."""
    block = re.findall(r":root \{(.*?)\}", (folder / "report.html").read_text(), re.DOTALL)[scheme]
    colours = dict(re.findall(r"--(\w+): (#\w+)", block))
    for name in ("ink", "soft", "link", "yes", "no", "open"):
        for ground in ("paper", "panel"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_named_levels_stand_right_of_the_numbers() -> None:
    levels = {"8": 8.0, "full": None, "32": 32.0}
    rows: list[tables.Row] = [{"level": level, "level_value": value} for level, value in levels.items()]
    assert level_places(rows) == {"8": 3.0, "32": 5.0, "full": 6.5}


def test_levels_without_a_logarithm_stand_with_the_named_ones() -> None:
    """Label noise of 0 is a level like others; its place is off the log2 axis, and no line leads there."""
    levels = {"0": 0.0, "0.25": 0.25, "0.5": 0.5, "full": None}
    rows: list[tables.Row] = [
        {"arm": "a", "level": level, "level_value": value, "gap": 0.1, "gap_lower": 0.05, "gap_upper": 0.15}
        for level, value in levels.items()
    ]
    places = level_places(rows)
    assert places == {"0.25": -2.0, "0.5": -1.0, "0": 0.5, "full": 2.0}
    runs = pl.DataFrame([{"arm": "a", "status": "ok", "level": level, "gap": 0.1} for level in levels])
    axes = draw_panel(Figure().subplots(), rows, runs, "gap", places)
    line, *_, rule = axes.lines
    assert list(np.asarray(line.get_xdata())) == [-2.0, -1.0] and list(np.asarray(rule.get_xdata())) == [-0.25, -0.25]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.25", "0.5", "0", "full"]


def test_the_page_does_not_say_that_claims_came_before_the_runs(folder: Path) -> None:
    """Some descriptive ones came after a first run, and the documentation says which."""
    page = (folder / "report.html").read_text()
    assert "declared in code" in page and "before the runs" not in page.lower()


def test_numbers_are_written_for_people() -> None:
    assert written.percent(math.nan) == "–"
    assert written.points(0.0225) == "+2.25"
    assert [written.p_value(p) for p in (1.0, 0.5, 0.0004)] == ["1", ".500", "< .001"]


def test_latex_is_escaped() -> None:
    text = latex.latex(["a_b", "50 %"], [["x & y", "−1"]])
    assert r"a\_b & 50 \%" in text
    assert r"x \& y & $-$1 \\" in text


def test_a_table_without_rows_has_no_blank_line() -> None:
    """TeX would take it for a row, and stop at the rule that follows."""
    text = latex.latex(["a", "b"], [])
    assert "\n\n" not in text and "\\midrule\n\\bottomrule\n" in text


def test_words_on_an_interval_of_several_parts_fit_whichever_is_shown() -> None:
    part = Difference(metric="test_accuracy", a=Point(arm="a", level=1), b=Point(arm="b", level=1))
    assert written.averaged(part) == "paired difference"
    assert written.averaged(Every(parts=(part, part))) == "paired difference of the part that is shown"


@pytest.mark.parametrize(
    ("shares", "scale"),
    [
        ((0.98, 0.97, 0.975, 0.4), "function"),
        ((0.999, 0.998, 0.997, 0.4), "function"),  # the bars reach beyond 100 %
        ((0.98, 0.7, 0.5, 0.4), "linear"),
        ((0.445, 0.446, 0.444, 0.34), "linear"),  # it would have one tick
        ((0.9,), "linear"),
    ],
)
def test_one_low_accuracy_does_not_press_the_others_together(shares: tuple[float, ...], scale: str) -> None:
    """The axis keeps the order, and every mean stays inside it."""
    rows: list[tables.Row] = [
        {"arm": "a", "level": f"{2**at}", "level_value": 2**at}
        | {"test_accuracy": share, "test_accuracy_lower": share - 0.01, "test_accuracy_upper": share + 0.01}
        for at, share in enumerate(shares)
    ]
    runs = [{"arm": "a", "status": "ok", "level": row["level"], "test_accuracy": row["test_accuracy"]} for row in rows]
    axes = draw_panel(Figure().subplots(), rows, pl.DataFrame(runs), "test_accuracy", level_places(rows))
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert all(low < 100 * share < high for share in shares) and len(axes.get_yticks()) > 2
    heights = axes.transData.transform([(0, 100 * share) for share in sorted(shares)])[:, 1]
    assert np.all(np.diff(heights) > 0)
    if scale == "function":
        assert heights[-1] - heights[-3] > 0.05 * (heights[-1] - heights[0]), "98 and 97 can be told apart beside 40"
