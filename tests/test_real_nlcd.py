"""docs/real_nlcd.py: what the page says of real NLCD is what the command prints."""

from commands import run_script


def test_the_observation_model_stands_above_the_merge_turned_round_shares_and_shares_of_codes(real):
    printed = run_script("docs/real_nlcd.py", real)
    lines = [line for line in printed.splitlines() if line[34:44].strip().startswith("-")]
    rows = {line[:34].strip(): float(line[34:44]) for line in lines}
    assert len(rows) == 7
    for other in ("codes' shares", "the merge alone", "p(l | code) inverted, per pixel"):
        assert rows["observation model"] > rows[other] + 0.05, printed
