"""What the pages of figures have in common: their head, with a look for light and for dark."""

from __future__ import annotations

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>TITLE · speechchat</title>
<style>
:root { --ink: #1c1e21; --bg: #f4f5f7; --card: #fff; --line: #dfe2e7; --soft: #667; --bad: #c01c28; --good: #26734d;
  --bar: #2c66b0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --bg: #121417; --card: #1d2024; --line: #333940;
  --soft: #9aa3af; --bad: #ff8087; --good: #7fd0a0; --bar: #7fb0f0; } }
body { margin: 0 auto; padding: 1rem; max-width: 90rem; background: var(--bg); color: var(--ink);
  font: 15px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; } h3 { font-size: 1rem; }
.soft { color: var(--soft); } .bad { color: var(--bad); } .good { color: var(--good); }
img { max-width: 100%; border-radius: 8px; background: #fff; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; background: var(--card); font-size: .87rem; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .5rem; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
audio { height: 30px; width: 13rem; }
STYLE</style>
</head>
"""


def head(title: str, style: str = "") -> str:
    """A page up to its body. style: rules of its own."""
    return _HEAD.replace("TITLE", title).replace("STYLE", style)
