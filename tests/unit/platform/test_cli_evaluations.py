"""Commands on evaluations against the whole API, without a socket; the machines' part is played by the test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from raymaker.platform.cli import drawings
from raymaker.platform.cli.main import app
from raymaker.platform.cli.session import Session
from raymaker.platform.client import EvaluationFailed
from support.evaluations import CONFIG, play_evaluation, store_records
from support.near_platform import NearPlatform, near_platform


class Trial:
    """A platform with a job that has ended and stored its output in a folder."""

    def __init__(self, platform: NearPlatform, folder: Path) -> None:
        self.platform = platform
        self.folder = folder
        platform.client.train(
            image="algo", name="digits", output=folder, evaluation={**CONFIG, "Schedule": "OnRequest"}
        )
        platform.complete_job("digits")

    def run(self, *arguments: str) -> Result:
        result = CliRunner().invoke(app, arguments, obj=Session(known_client=self.platform.client))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def read(self, *arguments: str) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def play(self, metrics: dict[str, float] | str, number: int = 1) -> None:
        play_evaluation(self.platform.context.database, "digits", number, self.platform.now, metrics)
        store_records(
            self.folder / "digits" / "evaluations" / str(number) / "records.parquet",
            [("0,16,16,0", "3", "3", 0.9), ("16,0,0,16", "8", "3", 0.75)],
        )


@pytest.fixture
def trial(home: Path, tmp_path: Path) -> Iterator[Trial]:
    with near_platform(home) as platform:
        yield Trial(platform, tmp_path / "out")


def test_an_evaluation_is_asked_for_awaited_and_listed(trial: Trial) -> None:
    assert trial.run("evaluations", "digits").stdout == "no evaluations\n"
    assert "evaluation 1 of digits was asked for" in trial.run("evaluate", "digits").stdout
    trial.play({"accuracy": 0.5})
    trial.platform.meanwhile(lambda: trial.play({"accuracy": 0.75}, 2))
    shown = trial.run("evaluate", "digits", "--wait").stdout
    assert "accuracy" in shown
    assert "0.75" in shown
    rows = trial.run("evaluations", "digits").stdout.splitlines()
    assert rows[0].split() == ["NUMBER", "STATUS", "OF", "ENDED", "RECORDS", "METRICS"]
    assert "Completed" in rows[1]
    assert "accuracy=0.5" in rows[1]
    assert [each["EvaluationNumber"] for each in trial.read("evaluations", "digits")] == [1, 2]


def test_a_job_is_described_with_its_history(trial: Trial) -> None:
    for number in range(1, 7):
        trial.run("evaluate", "digits")
        trial.play({"accuracy": number / 10}, number)
    shown = trial.run("describe", "digits").stdout
    assert "EvaluationCompleted  evaluation 6 of the job's model, 10 records: accuracy 0.6" in shown
    assert "evaluation 1 of" not in shown
    assert "and 2 before: `raymaker events digits`" in shown


def test_algorithms_that_are_compared_are_shown_side_by_side(trial: Trial) -> None:
    two = [{"Name": name, "TrainingImage": name} for name in ("trees", "network")]
    trial.platform.client.train(algorithms=two, name="both", output=trial.folder)
    rows = [line.split()[:3] for line in trial.run("describe", "both").stdout.splitlines()]
    assert ["trees", "both-trees", "InProgress"] in rows
    assert ["network", "both-network", "InProgress"] in rows


def test_one_that_fails_says_why(trial: Trial) -> None:
    trial.platform.meanwhile(lambda: trial.play("the labels are missing"))
    result = trial.run("evaluate", "digits", "--wait")
    assert result.exit_code == 1
    assert "evaluation 1 of digits failed: the labels are missing" in result.output
    with pytest.raises(EvaluationFailed, match="the labels are missing"):
        trial.platform.client.job("digits").wait_for_evaluation(1)


def test_a_configuration_comes_from_a_file(trial: Trial, tmp_path: Path) -> None:
    place = tmp_path / "evaluation.json"
    place.write_text(json.dumps({**CONFIG, "Metrics": ["f1"]}))
    assert trial.read("evaluate", "digits", "--config", str(place)) == {"EvaluationNumber": 1}
    name = trial.run("train", "--image", "algo", "--name", "more", "--evaluation", str(place)).stdout.strip()
    assert trial.platform.client.job(name).describe()["EvaluationConfig"]["Metrics"] == ["f1"]
    place.write_text("[]")
    assert "holds no JSON object" in trial.run("evaluate", "digits", "--config", str(place)).output
    assert "cannot be read" in trial.run("evaluate", "digits", "--config", "none").output


def test_records_are_shown_as_a_table_and_as_pictures(trial: Trial, tmp_path: Path) -> None:
    trial.run("evaluate", "digits")
    trial.play({"accuracy": 0.5})
    rows = trial.run("records", "digits").stdout.splitlines()
    assert rows[0].split() == ["RECORD", "TAG", "KNOWN", "RESULT", "DIFFERENCE", "CONFIDENCE", "INPUT"]
    assert rows[1].split() == ["1", "tag-1", "8", "3", "1", "0.75", "16,0,0,16"]
    assert [each["RecordNumber"] for each in trial.read("records", "digits", "--best", "-n", "1")] == [0]
    assert [each["RecordNumber"] for each in trial.read("records", "digits", "--wrong")] == [1]
    assert trial.run("records", "digits", "--label", "9").stdout == "no records\n"
    image = tmp_path / "worst.svg"
    shown = trial.run("records", "digits", "--pictures", "2x2", "--image", str(image)).stdout
    assert "8, said 3 75%" in " ".join(shown.split())
    assert shown.splitlines()[0].split() == ["██", "██"], "there is no colour here, so it is drawn in shades"
    assert image.read_text().startswith("<svg")
    unfit = trial.run("records", "digits", "--pictures", "3x3").output
    assert "which do not fill 9" in " ".join(unfit.replace("│", " ").split())
    assert "one kind of image" in trial.run("records", "digits", "--pictures", "2x2", "--image", "a.png").output


def test_a_picture_has_two_rows_of_values_to_a_line() -> None:
    record = {"Input": "0,8,16,4,0,0", "Label": "3", "Output": "5"}
    drawn = drawings.draw([record, record], 2, 3, 34)
    first, second, caption = drawn.plain.split("\n")
    assert first == second == "▀▀              ▀▀            "
    assert caption == "3, said 5       3, said 5     "
    console = Console()
    colours = [span.style for span in drawn.spans]
    assert "rgb(0,0,0) on rgb(255,255,255)" in map(str, colours)
    assert "rgb(128,128,128) on rgb(64,64,64)" in map(str, colours)
    assert len(console.render_lines(drawings.draw([record] * 3, 2, 3, 16))) == 3 * 3 + 2
    shaded = drawings.draw([record], 2, 3, 34, in_colour=False).plain.split("\n")
    assert [line.rstrip() for line in shaded] == ["  ▒▒", "██░░", "", "3, said 5"]
    with pytest.raises(ValueError, match="no row of numbers: cat"):
        drawings.draw([{**record, "Input": "cat"}], 1, 1, 80)
    assert drawings.draw([], 2, 2, 80).plain == "no records"
