import csv
import dataclasses
import json
import math
import re

import pytest

from comparison.results.rows import Cell
from comparison.results.statistics import summarise
from comparison.results.tables import latex_table, markdown_table, write_results, write_tables


@pytest.fixture
def summaries(study):
    return summarise(*study, "full", "random", bootstrap=200)


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def headings_and_lines(markdown):
    """Cells of the lines below each heading, without header and rule."""
    tables = {}
    for part in markdown.split("### ")[1:]:
        title, *lines = part.splitlines()
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        tables[title] = {"header": cells[0], "lines": cells[2:]}
    return tables


def test_csv_holds_every_row_with_all_its_digits(study, summaries, tmp_path):
    rows, images = study
    write_results(tmp_path / "new", rows, images, summaries)
    lines = read_csv(tmp_path / "new" / "results.csv")
    assert len(lines) == len(rows)
    assert list(lines[0])[:7] == ["regime", "teacher", "recipe", "network", "budget", "seed", "set"]
    for line, row in zip(lines, rows, strict=True):
        assert float(line["psnr_y"]) == row.psnr_y
        assert float(line["total_seconds"]) == row.distillation_seconds + row.training_seconds
        assert line["budget"] == ("" if row.cell.budget is None else str(row.cell.budget))
        assert line["protocol"] == row.protocol  # holds a comma
    per_image = read_csv(tmp_path / "new" / "per_image.csv")
    assert [line["image"] for line in per_image] == [image.image for image in images]
    assert [float(line["psnr_y"]) for line in per_image] == [image.psnr_y for image in images]


def test_summary_has_the_derived_columns(study, summaries, tmp_path):
    write_results(tmp_path, *study, summaries)
    for line, summary in zip(read_csv(tmp_path / "summary.csv"), summaries, strict=True):
        low, high = summary.gain_interval or ("", "")
        assert (line["set"], line["gain_low"], line["gain_high"]) == (summary.group.set, str(low), str(high))
        assert line["kept"] == str(summary.kept)


def test_json_holds_the_same_as_the_csv_files(study, summaries, tmp_path):
    write_results(tmp_path, *study, summaries)
    content = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert content["schema"] == 2
    for name, key in (("results.csv", "rows"), ("summary.csv", "summary")):
        texts = [
            {column: "" if value is None else str(value) for column, value in record.items()} for record in content[key]
        ]
        assert texts == read_csv(tmp_path / name)


def test_json_is_valid_where_a_training_has_diverged(row, tmp_path):
    cell = Cell("full", False, "plain", "edsr_tiny", None, 0)
    write_results(tmp_path, [row(cell, "Set5", math.nan), row(cell, "Set14", math.inf)], [], [])
    text = (tmp_path / "results.json").read_text("utf-8")
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [each["psnr_y"] for each in content["rows"]] == [None, None]


def test_files_without_rows_still_have_a_header(tmp_path):
    write_results(tmp_path, [], [], [])
    assert [len((tmp_path / name).read_text().splitlines()) for name in ("results.csv", "per_image.csv")] == [1, 1]


def test_each_network_recipe_and_teacher_has_its_own_table(summaries):
    tables = headings_and_lines(markdown_table(summaries))
    teacher = ", targets from a trained network (teacher)"
    plain = [f"{network}, {recipe}" for network in ("edsr_tiny", "swinir_light") for recipe in ("plain", "strong")]
    assert list(tables) == plain + [title + teacher for title in plain]
    assert [line[0] for line in tables["edsr_tiny, plain" + teacher]["lines"]] == ["sharpening", "random"] * 2


def test_figures_of_one_table_by_hand(summaries):
    table = headings_and_lines(markdown_table(summaries))["edsr_tiny, plain"]
    assert table["lines"][0] == [
        *("sharpening", "0.68 %", "95", "30.22 ± 0.02", "27.82 ± 0.02", "29.02 ± 0.02", "0.7604"),
        *("\u22120.20", "+0.20 [+0.20, +0.20]", "90.1 %", "20 s", "1 min 01 s", "3"),
    ]
    assert table["lines"][-1] == [
        *("full", "100 %", "13,965", "30.42 ± 0.02", "28.02 ± 0.02", "29.22 ± 0.02", "0.7644"),
        *("0.00", "\u2013", "100 %", "0 s", "1 min 01 s", "3"),
    ]
    assert "28.40 dB (Set5), 26.00 dB (Set14), 27.20 dB (mean)" in markdown_table(summaries)


def test_best_line_of_each_budget_comes_first_and_full_data_last(study):
    rows, images = study
    worse = [
        dataclasses.replace(row, psnr_y=row.psnr_y - 1) if row.cell[:1] + row.cell[4:5] == ("sharpening", 5.0) else row
        for row in rows
    ]
    table = headings_and_lines(markdown_table(summarise(worse, images, "full", "random", 100)))["edsr_tiny, plain"]
    expected = [("sharpening", "0.68 %"), ("random", "0.68 %"), ("random", "5 %"), ("sharpening", "5 %")]
    assert [tuple(line[:2]) for line in table["lines"]] == [*expected, ("full", "100 %")]


def test_line_without_all_sets_has_dashes_for_its_mean(study):
    rows, images = study
    some = [row for row in rows if row.cell.regime != "sharpening" or row.set == "Set5"]
    table = headings_and_lines(markdown_table(summarise(some, images, "full", "random", 100)))["edsr_tiny, plain"]
    assert [line[0] for line in table["lines"]] == ["random", "sharpening", "random", "sharpening", "full"]
    dash = "\u2013"
    assert table["lines"][1][3:10] == ["30.22 ± 0.02", *[dash] * 6]
    assert table["lines"][1][-3:] == ["20 s", "1 min 01 s", "3"]


def test_single_set_has_no_column_for_its_mean(study):
    rows, images = study
    lines = summarise([row for row in rows if row.set == "Set5"], images, "full", "random", 100)
    header = headings_and_lines(markdown_table(lines))["edsr_tiny, plain"]["header"]
    assert [title for title in header if "PSNR" in title] == ["PSNR-Y Set5"]


def test_headers_name_the_regimes_compared_with(summaries):
    header = headings_and_lines(markdown_table(summaries, "everything", "chance"))["edsr_tiny, plain"]["header"]
    assert {"Gap to everything", "Gain over chance"} <= set(header)


def check_latex(text):
    """Balanced braces and environments, the same number of cells in each line, and nothing that TeX would trip over."""
    plain = re.sub(r"\\[_%&#${}]", "", text)
    assert not set(plain) & set("%#~^")
    assert text.isascii()
    depth = 0
    for sign in plain:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    open_environments = []
    for kind, name in re.findall(r"\\(begin|end)\{([a-z*]+)\}", text):
        if kind == "begin":
            open_environments.append(name)
        else:
            assert open_environments.pop() == name
    assert not open_environments
    outside = re.sub(r"\$[^$\n]*\$", "", plain)
    assert "$" not in outside
    assert "_" not in outside
    for table in plain.split(r"\begin{tabular}")[1:]:
        columns = len(re.match(r"\{([lr]+)\}", table)[1])
        cells = [line.count("&") + 1 for line in table.splitlines() if line.endswith(r"\\")]
        assert cells
        assert set(cells) == {columns}
        rules = re.findall(r"\\(\w+rule)", table)
        assert (rules[0], rules[-1], set(rules[1:-1])) == ("toprule", "bottomrule", {"midrule"})


def test_latex_is_well_formed_with_awkward_names(study):
    rows, images = study
    awkward = {"sharpening": r"a_b & 50% #1 {x} ~ ^ \ $", "random": "random_10%", "full": "full"}
    changed = [dataclasses.replace(row, cell=row.cell._replace(regime=awkward[row.cell.regime])) for row in rows]
    text = latex_table(summarise(changed, images, "full", "random_10%", 100), "full", "random_10%")
    assert r"a\_b \& 50\% \#1 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} \$" in text
    check_latex(text)
    with pytest.raises(AssertionError):
        check_latex(text.replace(r"50\%", "50%"))


def test_latex_shows_what_markdown_shows(summaries):
    latex = latex_table(summaries)
    check_latex(latex)
    lines = [line for line in latex.splitlines() if line.endswith(r"\\") and not line.startswith("Regime")]
    signs = {r"\_": "_", r"\%": "%", r"$\pm$": "±", "$-$": "\u2212", "--": "\u2013", r" \\": ""}
    cells = []
    for line in lines:
        for escaped, sign in signs.items():
            line = line.replace(escaped, sign)  # noqa: PLW2901
        cells.append(line.split(" & "))
    assert cells == [
        line for table in headings_and_lines(markdown_table(summaries)).values() for line in table["lines"]
    ]


def test_both_tables_are_written(summaries, tmp_path):
    write_tables(tmp_path / "new", summaries)
    assert (tmp_path / "new" / "table.md").read_text("utf-8") == markdown_table(summaries)
    assert (tmp_path / "new" / "table.tex").read_text("utf-8") == latex_table(summaries)


def test_no_rows_make_no_tables():
    assert "|" not in markdown_table([])
    assert latex_table([]) == ""


def test_restoration_is_against_the_degraded_input(denoising, summaries):
    """All else is as in the tables of super-resolution, whose words other tests check."""
    restored = summarise(*denoising, "full", "random", bootstrap=200)
    for table in (markdown_table, latex_table):
        expected = table(summaries).replace("bicubic upscaling", "the degraded input")
        assert table(restored) == expected.replace("Bicubic upscaling", "The degraded input")
        assert "icubic" not in table(restored)


def test_files_tell_what_figures_without_a_network_are(study, denoising, tmp_path):
    for (rows, images), name, rgb in ((study, "bicubic", ""), (denoising, "input", str(denoising[0][0].psnr_rgb))):
        write_results(tmp_path, rows, images, summarise(rows, images, "full", "random", bootstrap=20))
        line = read_csv(tmp_path / "results.csv")[0]
        assert (line["untrained"], line["psnr_rgb"]) == (name, rgb)
        assert float(line["psnr_y_untrained"]) == rows[0].psnr_y_untrained
        assert {line["untrained"] for line in read_csv(tmp_path / "summary.csv")} == {name}
        assert float(read_csv(tmp_path / "per_image.csv")[0]["psnr_y_untrained"]) == images[0].psnr_y_untrained
