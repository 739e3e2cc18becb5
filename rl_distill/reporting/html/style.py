"""The page's style sheet and its one small script (hover read-outs, filters); no fonts or files from elsewhere."""

CSS = """
:root{color-scheme:light dark;--bg:#fbfaf8;--card:#fff;--ink:#1c1b1a;--soft:#6b6863;--rule:#e6e2dc;--wash:#f3f0eb;
--good:#1b7f4d;--goodwash:#e2f3e9;--bad:#b8352b;--badwash:#fbe7e4;--accent:#2458c5;
--c0:#2458c5;--c1:#d9730d;--c2:#17865a;--c3:#8a4fc7;--c4:#c2374b;--c5:#0f8299;--c6:#8a6d1a;--c7:#5d6670}
@media(prefers-color-scheme:dark){:root{--bg:#131416;--card:#1b1d20;--ink:#eceae6;--soft:#9d9a94;--rule:#2e3136;
--wash:#24272b;--good:#5fcf95;--goodwash:#173526;--bad:#f08377;--badwash:#40201d;--accent:#86aeff;
--c0:#7aa5ff;--c1:#ffa14a;--c2:#52cf98;--c3:#c398ff;--c4:#ff7d8d;--c5:#4fcbe0;--c6:#d9bb58;--c7:#a4adb8}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
-webkit-text-size-adjust:100%}
main{max-width:1180px;margin:0 auto;padding:40px 24px 80px}
h1{font-size:clamp(28px,4.6vw,44px);line-height:1.14;letter-spacing:-.022em;margin:6px 0 14px;font-weight:680;
max-width:24ch;text-wrap:balance}
h2{font-size:22px;letter-spacing:-.012em;margin:56px 0 4px;font-weight:650}
h3{font-size:15px;margin:0 0 2px;font-weight:620}
p{margin:6px 0 14px;max-width:72ch}
a{color:var(--accent)}
.eyebrow,.note,figcaption,.meta{color:var(--soft);font-size:14px}
.eyebrow{letter-spacing:.01em;font-weight:550}
.lead{font-size:18px;color:var(--soft);max-width:62ch}
.num,td,th{font-variant-numeric:tabular-nums}
.card{background:var(--card);border:1px solid var(--rule);border-radius:14px;padding:18px 20px}
.facts{display:flex;flex-wrap:wrap;gap:8px 34px;margin:26px 0 8px}
.facts div{min-width:92px}.facts b{display:block;font-size:24px;letter-spacing:-.015em;font-weight:640}
.facts span{color:var(--soft);font-size:14px}
.scores{margin-top:18px;padding:8px 22px 16px}
.score{display:grid;grid-template-columns:112px 1fr 96px;gap:18px;align-items:center;padding:16px 0;
border-top:1px solid var(--rule)}
.score:first-of-type{border-top:0}.score b{font-weight:620}.score small{display:block;color:var(--soft);
font-size:13px;font-weight:400}
.track{position:relative;height:34px}
.track:before{content:"";position:absolute;left:0;right:0;top:16px;height:2px;background:var(--rule);border-radius:2px}
.track i{position:absolute;top:16px;height:2px}
.span{background:var(--accent);opacity:.9;height:4px!important;top:15px!important;border-radius:2px}
.ci{height:14px!important;top:10px!important;border-radius:7px;opacity:.17}
.dot{width:14px;height:14px!important;top:10px!important;margin-left:-7px;border-radius:50%;
border:3px solid var(--card)}
.before{background:var(--soft)}.after{background:var(--accent)}
.teacher{background:var(--c1)}.dot.teacher{width:4px;margin-left:-2px;border:0;border-radius:2px;height:24px!important;
top:5px!important}
.gain{text-align:right;font-size:20px;font-weight:640;letter-spacing:-.01em}
.gain small{font-weight:400;letter-spacing:0}
.scale{display:grid;grid-template-columns:112px 1fr 96px;gap:18px;color:var(--soft);font-size:12px}
.scale div{position:relative;height:18px}
.scale em{position:absolute;transform:translateX(-50%);font-style:normal;white-space:nowrap}
.narrow{max-width:720px}.narrow td{white-space:normal;overflow-wrap:anywhere}
.key{display:flex;flex-wrap:wrap;gap:4px 16px;color:var(--soft);font-size:13px;margin:2px 0 6px}
.key span{display:inline-flex;align-items:center;gap:6px}
.key i{width:14px;height:3px;border-radius:2px;flex:none}.key i.round{width:10px;height:10px;border-radius:50%}
.key i.tick{width:4px;height:14px}
.key svg{width:22px;height:6px;flex:none}
.wide{overflow-x:auto;margin:12px 0}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:14.5px}
th{font-weight:560;color:var(--soft);text-align:right;padding:6px 12px;border-bottom:1px solid var(--rule);
white-space:nowrap;font-size:13.5px}
td{padding:9px 12px;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th:first-child,td:first-child,.second th:nth-child(2),.second td:nth-child(2){text-align:left}
th:first-child,td:first-child{padding-left:0;position:sticky;left:0;background:var(--bg)}
tr:last-child td{border-bottom:0}
td small{color:var(--soft);display:block;font-size:12.5px}
td.text{white-space:normal;text-align:left;min-width:180px}
.good{color:var(--good)}.bad{color:var(--bad)}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(330px,100%),1fr));gap:16px;margin:16px 0}
figure{margin:0}figure.card{padding:16px 14px 10px 16px;display:flex;flex-direction:column}
figure svg.chart{margin-top:auto}
figcaption{line-height:1.4;margin-bottom:6px;font-size:13.5px}
svg.chart{display:block;width:100%;height:auto;touch-action:pan-y}
svg text{fill:var(--soft);font-size:11px;font-family:inherit;font-variant-numeric:tabular-nums}
svg .grid{stroke:var(--rule);stroke-width:1}
svg .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
svg .raw{fill:none;stroke-width:1;opacity:.22}svg .level{stroke-width:1.3;stroke-dasharray:1 4;stroke-linecap:round}
svg .area{opacity:.85}svg .cursor{stroke:var(--soft);stroke-width:1;visibility:hidden}
#tip{position:fixed;pointer-events:none;background:var(--ink);color:var(--bg);font-size:12.5px;line-height:1.5;
padding:7px 10px;border-radius:8px;display:none;z-index:9;font-variant-numeric:tabular-nums;max-width:260px}
#tip i{display:inline-block;width:8px;height:8px;border-radius:50%;margin-right:6px}
.matrix{display:grid;grid-template-columns:repeat(4,1fr);gap:12px;margin:16px 0 8px}
.matrix div{border-radius:12px;padding:14px 16px;background:var(--wash)}
.matrix b{display:block;font-size:26px;font-weight:650;letter-spacing:-.015em;line-height:1.2}
.matrix span{font-size:13.5px;color:var(--soft)}
.matrix .up{background:var(--goodwash)}.matrix .up b{color:var(--good)}
.matrix .down{background:var(--badwash)}.matrix .down b{color:var(--bad)}
.pair{margin:12px 0;padding:0;overflow:hidden}
.pair header{padding:14px 18px;border-bottom:1px solid var(--rule);font-size:14.5px}
.pair header .meta{display:block;margin-bottom:4px;font-size:13px}
.pair .sides{display:grid;grid-template-columns:1fr 1fr}
.pair .side{padding:12px 18px 14px;min-width:0}.pair .side+.side{border-left:1px solid var(--rule)}
.pair h4{margin:0 0 6px;font-size:13px;font-weight:600;color:var(--soft)}
pre{font:13px/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;white-space:pre-wrap;overflow-wrap:anywhere;
margin:0}
mark{background:var(--badwash);color:inherit;border-radius:3px;padding:0 1px}.right mark{background:var(--goodwash)}
.chips{display:flex;flex-wrap:wrap;gap:8px;margin:14px 0}
.chips button{font:inherit;font-size:14px;padding:6px 14px;border-radius:99px;border:1px solid var(--rule);
background:var(--card);color:var(--ink);cursor:pointer}
.chips button[aria-pressed=true]{background:var(--ink);color:var(--bg);border-color:var(--ink)}
.chips button:focus-visible,summary:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
details{margin:10px 0}summary{cursor:pointer;color:var(--accent);font-size:14.5px}
.command{display:block;background:var(--wash);border-radius:10px;padding:14px 16px;overflow-x:auto}
.bars{display:grid;grid-template-columns:max-content 1fr max-content;gap:8px 14px;align-items:center;font-size:14px;
margin:12px 0}
.bars i{display:block;height:12px;border-radius:3px;background:var(--c0);min-width:2px}
[hidden]{display:none!important}
@media(max-width:640px){.wide th,.wide td{padding:8px 3px;white-space:normal;font-size:12.5px}
.wide td small{font-size:11px}}
@media(max-width:640px){main{padding:26px 16px 60px}h2{margin-top:44px}
.score,.scale{grid-template-columns:1fr auto;gap:4px 12px}.score .track{grid-column:1/-1;grid-row:2}
.scale span{display:none}.scale div{grid-column:1/-1}.scores{padding:4px 16px 14px}
.matrix{grid-template-columns:1fr 1fr}.pair .sides{grid-template-columns:1fr}
.pair .side+.side{border-left:0;border-top:1px solid var(--rule)}
.facts{display:grid;grid-template-columns:1fr 1fr;gap:12px 24px}.scale em:last-child{transform:translateX(-100%)}}
@media print{.chips{display:none}.card{break-inside:avoid}}
"""

SCRIPT = """
const tip=document.getElementById('tip');
for(const svg of document.querySelectorAll('svg.chart')){
  const data=JSON.parse(svg.dataset.chart),cursor=svg.querySelector('.cursor');
  const hide=()=>{tip.style.display='none';cursor.style.visibility='hidden'};
  svg.addEventListener('pointerleave',hide);
  svg.addEventListener('pointermove',event=>{
    const box=svg.getBoundingClientRect(),at=(event.clientX-box.left)/box.width*400;
    const share=Math.min(1,Math.max(0,(at-44)/346)),wanted=data.x[0]+share*(data.x[1]-data.x[0]);
    let step=null;const lines=[];
    for(const s of data.series){
      let best=s.points[0];
      for(const p of s.points)if(Math.abs(p[0]-wanted)<Math.abs(best[0]-wanted))best=p;
      step=step===null||Math.abs(best[0]-wanted)<Math.abs(step-wanted)?best[0]:step;
      const value=data.percent?(100*best[1]).toFixed(1)+' %':String(Number(best[1].toPrecision(4)));
      lines.push([s.color,s.label,value]);
    }
    tip.replaceChildren(document.createTextNode('step '+Math.round(step)));
    for(const [color,label,value] of lines){
      const row=document.createElement('div'),dot=document.createElement('i');
      dot.style.background='var(--c'+color+')';row.append(dot,label+'  '+value);tip.append(row);
    }
    const x=44+(step-data.x[0])/((data.x[1]-data.x[0])||1)*346;
    cursor.setAttribute('x1',x);cursor.setAttribute('x2',x);cursor.style.visibility='visible';
    tip.style.display='block';
    tip.style.left=Math.min(event.clientX+14,innerWidth-tip.offsetWidth-8)+'px';
    tip.style.top=Math.min(event.clientY+14,innerHeight-tip.offsetHeight-8)+'px';
  });
}
for(const chips of document.querySelectorAll('.chips')){
  chips.addEventListener('click',event=>{
    const button=event.target.closest('button');if(!button)return;
    for(const other of chips.children)other.setAttribute('aria-pressed',other===button);
    for(const item of chips.parentElement.querySelectorAll('.pair'))
      item.hidden=button.dataset.show!=='all'&&!item.dataset.kind.split(' ').includes(button.dataset.show);
  });
}
"""
