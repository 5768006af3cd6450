// <saml-bridge-links biller="…"> shows a payer's links: see docs/integrate-your-portal.md
(() => {
  "use strict";
  const home = new URL(document.currentScript.src).origin;
  const words = {
    en: ["Loading…", "There is nothing here for your account.", "These pages could not be listed.",
      "Please sign in to see these pages.", "Try again", " (opens in a new tab)", "Not available right now"],
    es: ["Cargando…", "No hay nada aquí para su cuenta.", "No se han podido mostrar estas páginas.",
      "Inicie sesión para ver estas páginas.", "Intentar de nuevo", " (se abre en una pestaña nueva)",
      "No disponible en este momento"],
  };
  const shapes = {
    droplet: "M12 3s6.5 7 6.5 11.5a6.5 6.5 0 0 1-13 0C5.5 10 12 3 12 3z",
    bolt: "M13 2.5L5 13.5h6l-1 8 8-11h-6z",
    eye: "M2 12s3.6-6.5 10-6.5S22 12 22 12s-3.6 6.5-10 6.5S2 12 2 12zM12 9v6",
    gauge: "M4.5 18a9 9 0 1 1 15 0zM12 14l3.8-4.6",
    meters: "M3 4h7v16H3zM14 4h7v16h-7zM5 9h3M16 9h3",
    external: "M14 4h6v6M20 4l-9 9M18 14v6H4V6h6",
  };
  const css = `:host{display:block}
    :host([hidden]),[hidden]{display:none!important}
    ul{display:grid;gap:var(--saml-bridge-gap,.6rem);margin:0;padding:0;list-style:none}
    p{margin:0}
    p,small{color:var(--saml-bridge-muted,inherit)}
    small{display:block;font-weight:400}
    .link{display:flex;gap:.8rem;align-items:center;padding:var(--saml-bridge-padding,.75rem .9rem);
    border:1px solid var(--saml-bridge-border,#767676);border-radius:var(--saml-bridge-radius,.5rem);
    background:var(--saml-bridge-background,none);color:var(--saml-bridge-color,inherit);
    font-weight:var(--saml-bridge-weight,600);line-height:1.3;text-decoration:none}
    a:hover{border-color:var(--saml-bridge-accent,currentcolor)}
    :focus-visible{outline:3px solid var(--saml-bridge-focus,currentcolor);outline-offset:2px}
    .text{flex:1;min-width:0;overflow-wrap:anywhere}
    .seen{position:absolute;clip-path:inset(50%)}
    svg{flex:none;width:1.5em;fill:none;stroke:currentcolor;stroke-width:1.7}
    .icon{color:var(--saml-bridge-accent,currentcolor)}
    button{margin-top:.6rem;padding:.5rem 1rem;border:1px solid;border-radius:.5rem;background:none;color:inherit;font:inherit}`;
  const make = (name, values, ...children) => {
    const made = document.createElement(name);
    for (const key in values) made.setAttribute(key, values[key]);
    made.append(...children);
    return made;
  };
  const draw = (name, kind) => {
    const [svg, path] = ["svg", "path"].map((one) => document.createElementNS("http://www.w3.org/2000/svg", one));
    const values = {viewBox: "0 0 24 24", "aria-hidden": true, class: kind, part: kind};
    for (const key in values) svg.setAttribute(key, values[key]);
    path.setAttribute("d", shapes[name]);
    svg.append(path);
    return svg;
  };
  customElements.define("saml-bridge-links", class extends HTMLElement {
    static observedAttributes = ["biller", "lang"];
    connectedCallback() {
      if (!this.list) {
        const root = this.attachShadow({mode: "open"}), sheet = new CSSStyleSheet();
        sheet.replaceSync(css);
        root.adoptedStyleSheets = [sheet];
        this.status = make("p", {role: "status", part: "status"});
        this.list = make("ul", {role: "list", part: "list"});
        this.retry = make("button", {type: "button", part: "retry"});
        this.retry.onclick = () => this.load(true);
        root.append(this.status, this.list, this.retry);
      }
      this.load();
    }
    attributeChangedCallback() {
      if (this.list) this.load();
    }
    show(text, links, retry) {
      this.status.textContent = text;
      this.list.replaceChildren(...links);
      this.list.hidden = !links.length;
      this.retry.hidden = !retry;
    }
    async load(again) {
      const turn = this.turn = {}, lang = this.closest("[lang]")?.lang || navigator.language;
      const say = this.words = words[lang.slice(0, 2).toLowerCase()] || words.en;
      this.retry.textContent = say[4];
      this.show(say[0], [], again); // the button keeps its focus meanwhile
      let text = say[2], links = [], failed = true;
      try {
        const path = `/api/v1/portal/${encodeURIComponent(this.getAttribute("biller"))}/links?lang=${encodeURIComponent(lang)}`;
        const answer = await fetch(home + path, {credentials: "include", signal: AbortSignal.timeout(15e3)});
        if (answer.ok) {
          links = (await answer.json()).links.map((one) => this.render(one));
          text = links.length ? "" : say[1];
          failed = false;
        } else if (answer.status == 401) text = say[3];
      } catch {} // told as a failure, with a way to try again
      if (turn != this.turn) return;
      this.show(text, links, failed);
      if (again) this.list.querySelector("a")?.focus();
    }
    render({label, url, icon, opens, available}) {
      const text = make("span", {class: "text"}, label), inside = [text];
      if (shapes[icon]) inside.unshift(draw(icon, "icon"));
      const values = {class: "link", part: "link"};
      let name = "a";
      if (!available || new URL(url).origin != home) {
        name = "span";
        Object.assign(values, {role: "link", "aria-disabled": true});
        text.append(make("small", {}, this.words[6]));
      } else {
        values.href = url;
        if (opens == "new_tab") {
          Object.assign(values, {target: "_blank", rel: "noopener"});
          inside.push(draw("external", "opens"), make("span", {class: "seen"}, this.words[5]));
        }
      }
      return make("li", {}, make(name, values, ...inside));
    }
  });
})();
