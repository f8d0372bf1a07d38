"""``GET /``: what is served, and a form to try it; no script, nothing from elsewhere."""

from __future__ import annotations

from html import escape

from dropclass_deploy import __version__
from dropclass_deploy.serving.server.hosting import HostedModel
from dropclass_deploy.serving.server.state import ServerState

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:46rem;padding:0 1rem;color:#1d2433;background:#fff}
h1{font-size:1.5rem}table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.35rem .75rem .35rem 0;
border-bottom:1px solid #dde2ea;vertical-align:top}.swatch{display:inline-block;width:.9em;height:.9em;margin:0 .35em 0 0;
border:1px solid #8a93a3;vertical-align:-.1em}.class{white-space:nowrap;margin-right:.9em}form{margin:1rem 0}
code{background:#f2f4f8;padding:.1em .3em}a{color:#0b57a4}button{font:inherit;padding:.3rem .9rem}
"""


def page(state: ServerState) -> str:
    """HTML of the models, their classes, a form that answers with the overlay, and where the rest is described."""
    rows = "".join(_row(model) for model in state.models.values())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>dropclass serve</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<style>{_STYLE}</style></head><body><main><h1>dropclass serve {escape(__version__)}</h1>"
        f"<table><thead><tr><th>model</th><th>state</th><th>classes</th></tr></thead><tbody>{rows}</tbody></table>"
        f"{''.join(_form(model, state) for model in state.models.values())}"
        '<p><a href="/docs">Routes</a> · <a href="/metrics">Metrics</a> · '
        '<a href="/v2/health/ready">Ready?</a></p></main></body></html>'
    )


def _row(model: HostedModel) -> str:
    if not model.ready:
        return f"<tr><td>{escape(model.name)}</td><td>not ready</td><td></td></tr>"
    classes = model.segmenter.classes
    shown = "".join(
        f'<span class="class"><span class="swatch" style="background:rgb({red},{green},{blue})"></span>{escape(name)}</span>'
        f" "
        for name, (red, green, blue) in zip(classes.names, classes.palette, strict=True)
    )
    return f"<tr><td>{escape(model.name)}</td><td>ready</td><td>{shown}</td></tr>"


def _form(model: HostedModel, state: ServerState) -> str:
    if state.settings.api_key is not None:
        return ""  # a form cannot send the key
    name = escape(model.name, quote=True)
    return (
        f'<form method="post" enctype="multipart/form-data" action="/v1/segment?format=overlay&amp;model={name}">'
        f'<label>An image for {name}: <input type="file" name="image" required></label> '
        "<button>Show the overlay</button></form>"
    )
