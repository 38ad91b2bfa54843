"""The benchmark of training steps says in a line what it cannot do."""

import pytest

from support.scripts import benchmark


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--data . --variant huge", "invalid choice: 'huge'"),
        ("--data . --size 100", "not multiples of 32"),
        ("--data . --batch-size 0", "0 is not positive"),
    ],
)
def test_an_option_without_a_meaning_is_refused(
    options: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["", *options.split()])
    with pytest.raises(SystemExit, match="2"):
        benchmark("training_speed").main()
    assert said in capsys.readouterr().err


def test_data_that_are_not_there_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["", "--data", "missing.json"])
    with pytest.raises(SystemExit, match=r"error: .*missing\.json"):
        benchmark("training_speed").main()
