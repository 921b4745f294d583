extension HTMLReport {
    /// The page's style. Colours are named once for each scheme; shapes refer to the names.
    static let style = """
        :root{--paper:#f5f6f8;--card:#fff;--ink:#1b2330;--soft:#5b6675;--line:#dfe3e9;--grid:#e9ecf1;--confirmed:#15936a;--soldout:#a9b3c1;--refused:#d69a1c;--error:#d5304a;
        --p50:#2a6fdb;--p99:#8a4fd0;--p999:#e07b26;--redis:#d5304a;--database:#2a6fdb;--fault:#d5304a1f;--faultline:#d5304a66;--good:#0f7a57;--goodbg:#dcf3ea;--bad:#b3202f;--badbg:#fbe3e6;
        --closed:#15936a;--half:#d69a1c;--open:#d5304a;--meant:#1b2330}
        @media (prefers-color-scheme:dark){:root{--paper:#12161d;--card:#1b212b;--ink:#e7ebf1;--soft:#9aa6b6;--line:#2d3643;--grid:#28303c;--confirmed:#36c294;--soldout:#647184;--refused:#e3b341;
        --error:#ff6b81;--p50:#6ea8ff;--p99:#c39bff;--p999:#ffad66;--redis:#ff6b81;--database:#6ea8ff;--fault:#ff6b8126;--faultline:#ff6b8177;--good:#5ee0b5;--goodbg:#123a2d;--bad:#ff8d9c;
        --badbg:#43191f;--closed:#1f9d73;--half:#b98717;--open:#cf3f56;--meant:#e7ebf1}}
        *{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
        main{max-width:1060px;margin:0 auto;padding:28px 20px 48px}header{margin-bottom:18px}h1{font-size:26px;line-height:1.25;margin:0 0 6px;letter-spacing:-.01em}h2{font-size:16px;margin:0 0 10px}
        h1 em{font-style:normal;font-size:14px;font-weight:650;letter-spacing:.04em;text-transform:uppercase;padding:3px 10px;border-radius:99px;vertical-align:4px;margin-left:6px;white-space:nowrap}
        em.good{background:var(--goodbg);color:var(--good)}em.bad{background:var(--badbg);color:var(--bad)}header p{margin:0;color:var(--soft)}.when{font-size:13px}
        .tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:0 0 16px}.tile,.card{background:var(--card);border:1px solid var(--line);border-radius:12px}
        .tile{padding:12px 14px}.tile span,.tile small{display:block;color:var(--soft);font-size:12.5px}.tile b{display:block;font-size:22px;line-height:1.3;font-variant-numeric:tabular-nums}
        .card{padding:16px 18px;margin-bottom:16px}svg{display:block;max-width:100%;height:auto}.narrow{display:none}.grid{stroke:var(--grid)}.axis{stroke:var(--line)}
        .tick{font-size:12px;fill:var(--soft);font-variant-numeric:tabular-nums}.end{text-anchor:end}.unit{font-weight:600}.line{font-variant-numeric:tabular-nums}path.line{fill:none;stroke-width:2;stroke-linejoin:round}
        .area.confirmed{fill:var(--confirmed)}.area.soldout{fill:var(--soldout)}.area.refused{fill:var(--refused)}.area.error{fill:var(--error)}path.confirmed.line{stroke:var(--confirmed)}
        path.soldout.line{stroke:var(--soldout)}path.refused.line{stroke:var(--refused)}path.error.line{stroke:var(--error)}path.meant{stroke:var(--meant);stroke-dasharray:4 4;stroke-width:1.5}
        path.p50{stroke:var(--p50)}path.p99{stroke:var(--p99)}path.p999{stroke:var(--p999)}path.redis{stroke:var(--redis)}path.database{stroke:var(--database)}
        rect.fault{fill:var(--fault);stroke:var(--faultline)}rect.breaker{fill:var(--soft)}rect.CLOSED{fill:var(--closed)}rect.OPEN,rect.FORCED_OPEN{fill:var(--open)}rect.HALF_OPEN{fill:var(--half)}
        .state{font-size:11px;fill:#fff;font-weight:600;letter-spacing:.03em}.legend{margin:8px 0 0;display:flex;flex-wrap:wrap;gap:4px 16px;color:var(--soft);font-size:13px}.legend span{white-space:nowrap}
        .legend i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;vertical-align:-1px;background:var(--soft)}i.confirmed{background:var(--confirmed)}i.soldout{background:var(--soldout)}
        i.refused{background:var(--refused)}i.error{background:var(--error)}i.p50{background:var(--p50)}i.p99{background:var(--p99)}i.p999{background:var(--p999)}i.redis{background:var(--redis)}
        i.database{background:var(--database)}.legend i.fault{background:var(--fault);border:1px solid var(--faultline)}.legend i.meant{background:var(--meant);height:3px;vertical-align:4px}
        .scroll{overflow-x:auto;margin:0 0 10px}table{border-collapse:collapse;width:100%;font-size:14px}th,td{padding:5px 10px 5px 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
        th{color:var(--soft);font-weight:600;font-size:12.5px}tr:last-child td{border-bottom:0}.numbers td:not(:first-child),.numbers th:not(:first-child){text-align:right;padding:5px 0 5px 14px;white-space:nowrap;font-variant-numeric:tabular-nums}
        .words td:first-child{white-space:nowrap;color:var(--soft);font-variant-numeric:tabular-nums;padding-right:16px}.words td:last-child{overflow-wrap:anywhere}thead th:empty{padding:0;border:0}
        .note{color:var(--soft);font-size:13px;margin:6px 0 0}p.line{font-family:ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:13px;padding:8px 12px;border-radius:8px;margin:0 0 10px;overflow-wrap:anywhere}
        p.good{background:var(--goodbg);color:var(--good)}p.bad.line{background:var(--badbg)}.bad{color:var(--bad)}p.bad{font-size:13px;margin:6px 0 0}ul.bad{margin:6px 0;padding-left:20px}ol.faults{margin:0;padding-left:22px;font-size:14px}.number{font-weight:650}footer{color:var(--soft);font-size:12.5px;text-align:center}
        @media (max-width:640px){main{padding:18px 12px 32px}h1{font-size:21px}.wide{display:none}.narrow{display:block}.card{padding:14px 12px;border-radius:10px}.tiles{grid-template-columns:1fr 1fr;gap:8px}.tile b{font-size:19px}
        table{font-size:13px}}
        @media print{body{background:#fff}.card,.tile{break-inside:avoid}}
        """
}
