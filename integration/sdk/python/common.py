"""What the programs beside this one send, and how they print what became of it:
{"name": {"value": …} or {"error": …}} for each scenario, as send.mjs does for
Node. The test reads what arrived.
"""

import base64
import json
import sys

URL, KEY_NAME, KEY = sys.argv[1:] if len(sys.argv) == 4 else sys.exit(f"usage: {sys.argv[0]} URL KEY-NAME KEY")

NAME = "Müller & Söhne, Köln"
SHOP = "shop@example.com"
FROM = f'"{NAME}" <{SHOP}>'
HELP = "help@example.com"
SUBJECT = "Ihre Bestellung № 1042 — grüße"
TEXT = "Dear Ana,\n\n.a leading dot, a trailing blank \nund Umlaute: äöü €\n"
HTML = '<p>Grüße</p><img src="cid:logo.png">'
INVOICE = "Rechnung März.pdf"
LOGO = "logo.png"
PDF = bytes(i * 7 % 256 for i in range(3000))
PNG = bytes(255 - i for i in range(200))
# An address that clients let pass and mailsidecar refuses.
REFUSED = "a" * 250 + "@example.org"

_scenarios = {}


def scenario(name):
    """Keeps a function under the name of what it sends."""

    def keep(run):
        assert name not in _scenarios, name
        _scenarios[name] = run
        return run

    return keep


def to(local):
    return f"{local}@example.org"


def ana(local):
    return f"Ana Gómez <{to(local)}>"


def b64(content):
    return base64.b64encode(content).decode()


_TRANSPORT = ("http_headers", "headers", "ResponseMetadata", "request_id", "rate_limit_remaining")


def plain(value):
    """Turns what a client made of an answer into JSON's types, without the
    transport's part."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    elif hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items() if k not in _TRANSPORT}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, bytes):
        return value.decode()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _failure(error):
    """Keeps what a program could read of an exception."""
    read = {"class": type(error).__name__}
    if not hasattr(error, "body") and not hasattr(error, "request_id"):
        read["text"] = str(error)  # the others' has all of the answer's header in it
    for name in ("code", "error_code", "error_type", "http_status", "status", "status_code", "body", "message"):
        value = getattr(error, name, None)
        if value is not None and not callable(value):
            read[name] = plain(value)
    response = getattr(error, "response", None)
    if response is not None:
        read["response"] = plain(response if isinstance(response, dict) else response.text)
    return read


def main():
    answers = {}
    for name, run in _scenarios.items():
        try:
            answers[name] = {"value": plain(run())}
        except Exception as error:  # whatever a client raises is its answer
            answers[name] = {"error": _failure(error)}
    print(json.dumps(answers, indent=1))
