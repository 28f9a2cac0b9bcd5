"""The style sheet of the page: light and dark, desk and phone, screen and paper."""

CSS = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1d2229;--quiet:#59626e;--line:#dce0e6;--paper:#fff;
--accent:#0067a5;--accent-soft:#e4f0f8;--new:#8a4b00;--new-soft:#fdf0dc;--known:#4a5361;
--known-soft:#e9ecf0;--warn:#9a3412;--warn-soft:#fff4ec;--warn-line:#e8833a}
@media (prefers-color-scheme:dark){:root{--page:#14171b;--card:#1d2126;--ink:#e8eaed;--quiet:#a3acb8;--line:#343a42;
--paper:#eef0f2;--accent:#7cc0ec;--accent-soft:#16324a;--new:#f5c27a;--new-soft:#40300f;
--known:#c3cad3;--known-soft:#333a43;--warn:#ffb788;--warn-soft:#33211a;--warn-line:#d9732e}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.5 -apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"Liberation Sans",sans-serif}
main,header,footer{max-width:1240px;margin:0 auto;padding:0 28px}
header{padding-top:36px}
h1{font-size:2rem;line-height:1.2;margin:0 0 .3em;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:1.35rem;line-height:1.25;margin:2.2em 0 .5em}
h3{font-size:1.05rem;margin:0 0 .4em}
p{margin:.4em 0 .9em;max-width:80ch;overflow-wrap:anywhere;text-wrap:pretty}
a{color:var(--accent)}
.quiet{color:var(--quiet)}
.small{font-size:.875rem}
.eyebrow{margin:0 0 .4em;font-size:.8125rem;font-weight:600;letter-spacing:.06em;text-transform:uppercase;
color:var(--quiet)}
.asked{margin:.2em 0 1em;padding:0;list-style:none;display:flex;flex-wrap:wrap;gap:8px}
.asked li{background:var(--accent-soft);border-radius:8px;padding:5px 12px;font-weight:600;overflow-wrap:anywhere}
.answer{font-size:1.125rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:1.2em 0 0;padding:0}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 16px}
.tiles dt{font-size:.8125rem;color:var(--quiet);line-height:1.35}
sup{font-size:.7em;line-height:0}
.tiles dd{margin:2px 0 0;font-size:1.55rem;font-weight:650;line-height:1.2;font-variant-numeric:tabular-nums}
nav{margin:1.4em 0 0;font-size:.9375rem;display:flex;flex-wrap:wrap;gap:2px 20px}
nav a{padding:4px 0}
.warnings{margin:1.6em 0 0;background:var(--warn-soft);border:1px solid var(--warn-line);border-left-width:6px;
border-radius:10px;padding:14px 20px 6px}
.warnings h2{margin:0 0 .4em;font-size:1.1rem;color:var(--warn)}
.warnings ul{margin:0;padding-left:1.2em}
.warnings li{margin:0 0 .6em;max-width:90ch;overflow-wrap:anywhere}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px}
.candidates{width:100%;border-collapse:separate;border-spacing:0;overflow:hidden}
.candidates th{font-size:.8125rem;font-weight:600;color:var(--quiet);text-align:left;padding:10px 14px;
border-bottom:1px solid var(--line);line-height:1.3;vertical-align:bottom}
.candidates td{padding:12px 14px;vertical-align:top;border-bottom:1px solid var(--line)}
.candidates tr:last-child td{border-bottom:0}
.candidates .right{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.rank{color:var(--quiet);font-variant-numeric:tabular-nums}
.paper{background:var(--paper);border:1px solid var(--line);border-radius:8px;color:#2b3038}
.structure{width:224px}
.structure .paper{padding:4px;width:196px}
.structure svg{display:block;width:100%;height:auto}
.undrawn{padding:24px 8px;text-align:center;font-size:.875rem}
.molecule{min-width:200px}
.smiles{font:.875rem/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;
overflow-wrap:anywhere;word-break:break-word}
.badge{display:inline-block;font-size:.75rem;font-weight:650;line-height:1;padding:4px 8px;border-radius:99px;
margin-right:6px;vertical-align:2px}
.badge.new{color:var(--new);background:var(--new-soft)}
.badge.known{color:var(--known);background:var(--known-soft)}
.name{font-weight:600;overflow-wrap:anywhere}
.near{margin:.5em 0 0;font-size:.875rem;color:var(--quiet);line-height:1.4}
.estimates{margin:0;display:grid;gap:7px}
.estimates div{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 12px;align-items:baseline}
.estimates dt{flex:1 0 100%;font-size:.875rem;color:var(--quiet);line-height:1.3;overflow-wrap:anywhere}
.estimates dd{margin:0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums;line-height:1.35}
.estimates .own{color:var(--quiet);font-size:.875rem;white-space:nowrap}
.predictions{width:27%}
.meter{display:block;height:6px;border-radius:3px;background:var(--line);margin-top:6px;overflow:hidden}
.meter i{display:block;height:100%;background:var(--accent)}
.hit{min-width:92px}
.hit b{font-size:1.05rem;white-space:nowrap}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));gap:16px}
.figures.two{max-width:820px}
figure{margin:0;padding:12px 14px 10px;min-width:0;max-width:460px}
figure.paper{border-radius:12px}
figure svg{display:block;width:100%;height:auto;font-family:inherit}
figcaption{font-weight:600;font-size:.9375rem;margin:0 0 6px;color:#2b3038}
.how{margin:.4em 0 1em;padding-left:1.2em;max-width:80ch}
.how li{margin:.15em 0}
.model{margin:0 0 2em;display:grid;grid-template-columns:minmax(0,820px) minmax(260px,1fr);gap:0 28px}
.model h3{grid-column:1/-1}
.model .scores{margin-top:0;align-self:start}
.scores{border-collapse:collapse;margin:12px 0 0;font-size:.9375rem}
.scores th,.scores td{padding:6px 22px 6px 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:top;
overflow-wrap:anywhere}
.scores th{font-weight:500;color:var(--quiet)}
.scores td{font-variant-numeric:tabular-nums}
.model .scores td{min-width:8.6em;padding-right:0}
.model .scores th{overflow-wrap:break-word}
details{margin:2.2em 0 0;padding:14px 20px}
summary{cursor:pointer;font-weight:600;font-size:1.1rem}
details h3{margin:1.2em 0 .2em}
.pairs{width:100%;table-layout:fixed}
.pairs th{width:34%}
footer{margin-top:2.4em;padding-bottom:40px;font-size:.875rem;color:var(--quiet)}
.phone{display:none}
@media (max-width:1100px){
.model{display:block}
.model .scores{margin-top:12px}
}
@media (max-width:860px){
main,header,footer{padding-left:16px;padding-right:16px}
header{padding-top:24px}
h1{font-size:1.6rem}
.tiles{grid-template-columns:repeat(2,1fr);gap:10px}
.tiles div{padding:10px 12px}
.tiles dd{font-size:1.3rem}
table.candidates{display:block;background:none;border:0;overflow:visible}
.candidates thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.candidates tbody{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:14px}
.candidates tr{display:grid;grid-template-columns:1fr 1fr 1fr;gap:10px 12px;align-content:start;background:var(--card);
border:1px solid var(--line);border-radius:12px;padding:14px;position:relative;break-inside:avoid}
.candidates td{display:block;padding:0;border:0;min-width:0}
.candidates td.rank{position:absolute;top:20px;left:24px;color:#59626e;font-weight:600;z-index:1}
.candidates td.structure,.candidates td.molecule,.candidates td.predictions{grid-column:1/-1;width:auto}
.candidates td.hit{grid-row:3}.candidates td.weight{grid-row:3}.candidates td.access{grid-row:3}
.candidates td.predictions{grid-row:4;border-top:1px solid var(--line);padding-top:10px}
.structure .paper{width:100%;padding:6px}
.structure svg{max-width:260px;margin:0 auto}
.candidates .right{text-align:left}
.phone{display:block;font-size:.8125rem;color:var(--quiet);line-height:1.3}
.tiles div:first-child{grid-column:1/-1}
.scores th,.scores td{padding-right:12px}
details{padding:12px 16px}
}
@media print{
:root{--page:#fff;--card:#fff;--ink:#000;--quiet:#444;--line:#ccc;--paper:#fff;--accent:#0067a5;--accent-soft:#eef5fa;
--new:#8a4b00;--new-soft:#fff;--known:#333;--known-soft:#fff;--warn:#9a3412;--warn-soft:#fff}
body{font-size:10.5pt}
main,header,footer{max-width:none;padding-left:0;padding-right:0}
nav{display:none}
tr,figure,.tiles div,.warnings li{break-inside:avoid}
h2,h3{break-after:avoid}
.candidates thead{display:table-header-group}
}
"""
