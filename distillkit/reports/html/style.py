"""The style sheet of the page: light and dark, screen and paper, phone and desk. One accent colour; the rest is ink."""

from __future__ import annotations

# Contrasts on the paper of each scheme, all at least 4.5 for text: `tests/unit/reports/test_html_page.py` computes them.
LIGHT = {
    "paper": "#fdfdfc", "raised": "#f4f4f1", "ink": "#1d1f21", "soft": "#565b61", "rule": "#dcdcd6", "accent": "#0f5c8c",
    "wash": "#e3eef5", "warn": "#8a4b08", "mark": "#7d8288",
}  # fmt: skip
DARK = {
    "paper": "#16181b", "raised": "#1f2226", "ink": "#e7e8e9", "soft": "#a8adb3", "rule": "#34383d", "accent": "#7cbce8",
    "wash": "#1d3342", "warn": "#e0a660", "mark": "#80868d",
}  # fmt: skip


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


STYLE = (
    f":root{{color-scheme:light dark;{_variables(LIGHT)}}}"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
    + """
*,*::before,*::after{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%;scroll-padding-top:1rem}
body{margin:0;background:var(--paper);color:var(--ink);
 font:1rem/1.55 ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",sans-serif}
.page{max-width:48rem;margin:0 auto;padding:2.5rem 1.25rem 4rem;overflow-wrap:anywhere}
.skip{position:absolute;left:-100rem}
.skip:focus{left:1rem;top:.5rem;background:var(--paper);padding:.4rem .8rem;z-index:1}
a{color:var(--accent);text-underline-offset:.15em}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.over{margin:0;color:var(--soft);font-size:.875rem}
h1{font-size:1.75rem;line-height:1.3;font-weight:600;margin:.6rem 0 1rem;letter-spacing:-.01em;text-wrap:pretty}
h2{font-size:1.25rem;font-weight:600;margin:0 0 .6rem;line-height:1.3}
h3{font-size:1rem;font-weight:600;margin:1.8rem 0 .4rem}
p{margin:.5rem 0;max-width:42rem}
section{margin-top:2.75rem;padding-top:1.5rem;border-top:1px solid var(--rule)}
.lead{font-size:1.0625rem;color:var(--soft)}
.note{color:var(--soft);font-size:.875rem}
.missing{color:var(--soft);border-left:3px solid var(--mark);padding:.1rem 0 .1rem .8rem}
.gaps{border:1px solid var(--rule);background:var(--raised);border-radius:.4rem;padding:.7rem 1rem;margin:1.4rem 0}
.gaps h2{font-size:1rem;margin:0}.gaps ul{margin:.3rem 0 0;padding-left:1.2rem}
.warn{color:var(--warn)}
.n,.num{font-variant-numeric:tabular-nums}
.n,.interval{white-space:nowrap}
h1 .n{color:var(--accent)}
nav ul{list-style:none;margin:1.5rem 0 0;padding:0;display:flex;flex-wrap:wrap;gap:.15rem 1.1rem;font-size:.9rem}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:1px;background:var(--rule);border:1px solid var(--rule);
 border-radius:.4rem;overflow:hidden;margin:1.5rem 0 0}
.tiles div{background:var(--paper);padding:.7rem .9rem}
.tiles dt{color:var(--soft);font-size:.8125rem;line-height:1.35}
.tiles dd{margin:.15rem 0 0;font-size:1.25rem;font-weight:600;line-height:1.3}
.tiles dd small{display:block;font-size:.8125rem;font-weight:400;color:var(--soft)}
dl{margin:.6rem 0}
dl:not(.tiles) div{display:grid;grid-template-columns:minmax(8rem,15rem) 1fr;gap:.1rem 1rem;padding:.3rem 0;
 border-bottom:1px solid var(--rule)}
dl:not(.tiles) dt{color:var(--soft)}
dd{margin:0;min-width:0}
.scroll{overflow-x:auto;margin:.8rem 0}
table{border-collapse:collapse;width:100%;font-size:.9375rem;overflow-wrap:normal}
th,td{text-align:left;padding:.35rem .9rem .35rem 0;border-bottom:1px solid var(--rule);vertical-align:baseline}
thead th{color:var(--soft);font-weight:500;font-size:.8125rem}
tbody th{font-weight:400;min-width:7.5rem;position:sticky;left:0;background:var(--paper)}
td:last-child,th:last-child{padding-right:0}
.wrap{min-width:36rem}
.wrap td{min-width:6rem;overflow-wrap:anywhere}
.wrap tbody th{width:38%}
.wrap tbody th .note{display:block;line-height:1.4}
.num{text-align:right}
td.num{white-space:nowrap}
td.num .interval{display:block;color:var(--soft);font-size:.8125rem}
code,pre,.mono{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.875em}
code{overflow-wrap:anywhere}
pre{background:var(--raised);border:1px solid var(--rule);border-radius:.4rem;padding:.7rem .9rem;margin:.6rem 0;
 white-space:pre-wrap;line-height:1.5}
pre code{font-size:1em}
details{border-bottom:1px solid var(--rule);padding:.45rem 0}
summary{cursor:pointer;color:var(--accent)}
summary .figures{color:var(--ink)}
summary .start{display:block;color:var(--soft);font-size:.875rem;white-space:nowrap;overflow:hidden;
 text-overflow:ellipsis;padding-left:1rem}
details[open]>summary{margin-bottom:.4rem}
figure{margin:1.4rem 0}
figcaption{font-weight:600;font-size:.9375rem;margin-bottom:.35rem}
figure>svg{display:block;width:100%;height:auto}
figure>svg.narrow{display:none}
.legend{list-style:none;margin:.2rem 0 .5rem;padding:0;display:flex;flex-wrap:wrap;gap:.1rem 1.2rem;font-size:.875rem;
 color:var(--soft)}
.swatch{display:inline-block;width:22px;height:12px;vertical-align:-.05em}
svg text{font:12.5px ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",sans-serif;
 fill:var(--soft);font-variant-numeric:tabular-nums}
svg text.name{fill:var(--ink);font-size:13.5px}
svg text.value{fill:var(--ink);font-size:13.5px}
.grid{stroke:var(--rule);stroke-width:1}
.zero{stroke:var(--ink);stroke-width:1}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.line.thin{stroke-width:1.25}
.join{stroke:var(--rule);stroke-width:4}
.whisker{stroke-width:9;stroke-opacity:.28}
.s-after,.s-total{stroke:var(--accent)}
.s-before,.s-sampled{stroke:var(--mark)}
.line.s-before,.line.s-sampled{stroke-dasharray:1 4}
.s-control,.s-hard{stroke:var(--ink)}
.line.s-control,.line.s-hard{stroke-dasharray:6 4}
.s-teacher,.s-soft,.s-tuned_teacher{stroke:var(--soft)}
.line.s-teacher,.line.s-soft{stroke-dasharray:10 3 2 3}
.dot{stroke-width:2}
.dot.s-after,.dot.s-total{fill:var(--accent)}
.dot.s-before{fill:var(--mark)}
.dot.s-control{fill:var(--paper)}
.dot.s-teacher,.dot.s-tuned_teacher{fill:var(--ink);stroke:var(--ink)}
.bar.gain{fill:var(--accent)}
.bar.loss{fill:var(--mark)}
.bar.hollow{fill:var(--paper);stroke:var(--mark)}
.tokens{background:var(--raised);border:1px solid var(--rule);border-radius:.4rem;padding:.7rem .9rem;margin:.4rem 0 1rem;
 line-height:2;font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.8125rem}
.tokens span{padding:.15em 0;border-right:1px solid var(--mark);background:var(--paper)}
.tokens span:nth-child(even){background:var(--wash)}
.tokens span.own{border-right:2px dashed var(--warn)}
.text{white-space:pre-wrap;background:var(--raised);border-radius:.4rem;padding:.5rem .8rem;margin:.3rem 0;font-size:.9rem}
.samples{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:.8rem;margin:.4rem 0 1.6rem}
.samples h4{margin:0 0 .2rem;font-size:.8125rem;font-weight:500;color:var(--soft)}
.samples .text{margin:0}
.samples .after .text{background:var(--wash)}
.prompt{border-left:3px solid var(--accent);padding-left:.8rem;white-space:pre-wrap;margin:1.4rem 0 .6rem}
.heard{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
footer{margin-top:3rem;padding-top:1rem;border-top:1px solid var(--rule);color:var(--soft);font-size:.875rem}
@media screen and (max-width:40rem){
 .page{padding:1.5rem 1rem 3rem}
 h1{font-size:1.375rem}
 .tiles{grid-template-columns:repeat(2,1fr)}
 dl:not(.tiles) div{grid-template-columns:1fr}
 table{font-size:.875rem}
 th,td{padding-right:.6rem}
 figure>svg.wide{display:none}
 figure>svg.narrow{display:block}
}
@media print{
 @page{size:A4;margin:16mm 18mm}
 body{font-size:10pt;background:#fff}
 .page{max-width:none;padding:0}
 nav,.skip{display:none}
 section{margin-top:1.4rem;padding-top:.8rem}
 h1{font-size:1.5rem}
 h2,h3,figcaption,summary{break-after:avoid}
 figure,tr,.samples>div,dl div{break-inside:avoid}
 .scroll{overflow:visible}
 *{-webkit-print-color-adjust:exact;print-color-adjust:exact}
}
@media (forced-colors:active){
 .line,.whisker,.dot,.bar,.join{forced-color-adjust:none}
}
"""
)
