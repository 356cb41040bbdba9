"""What `localrun explain` prints."""

from datetime import UTC, datetime

from localrun.cli.explain import describe

NOW = datetime(2026, 11, 24, 12, 5, tzinfo=UTC)


def request(**fields):
    return {
        "model": "tiny", "answered_at": "2026-11-24T12:03:00Z",
        "prompt_tokens": 18203, "cached_tokens": 40, "why": "because", **fields,
    }  # fmt: skip


def test_the_newest_request_comes_last_and_the_words_that_differ_below():
    broken = {"role": "system", "index": 0, "character": 4, "was": "cch=1;", "now": "cch=2;"}
    text = describe([request(broken=broken), request(cached_tokens=18000, why="why not")], NOW)
    assert text == (
        "#    MODEL    ANSWERED         PROMPT    CACHED    WHY\n"
        "1    tiny     2 minutes ago    18,203    18,000    why not\n"
        "2    tiny     2 minutes ago    18,203    40        because\n"
        "\n"
        "2  system 0\n"
        "   was  'cch=1;'\n"
        "   now  'cch=2;'\n"
    )


def test_without_requests_it_says_so():
    assert describe([], NOW) == "no prompt was answered yet\n"
