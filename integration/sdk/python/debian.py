"""Sends with the clients that Debian has: Anymail for Django, with each backend
whose API mailsidecar serves, boto3, and requests, with which Mailgun's
documentation sends.

usage: python3 debian.py URL KEY-NAME KEY
"""

from email.message import EmailMessage
from email.mime.image import MIMEImage

import boto3
import django
import requests
from botocore.config import Config
from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.utils.translation import gettext_lazy

from common import (
    FROM, HELP, HTML, INVOICE, KEY, KEY_NAME, LOGO, PDF, PNG, REFUSED, SHOP, SUBJECT, TEXT, URL,
    ana, b64, main, scenario, to,
)

AWS = {
    "endpoint_url": URL, "region_name": "eu-central-1",
    "aws_access_key_id": KEY_NAME, "aws_secret_access_key": KEY,
}

# The documented settings, with another host in them.
settings.configure(
    USE_TZ=True, DEFAULT_CHARSET="utf-8", DEFAULT_FROM_EMAIL=FROM,
    ANYMAIL={
        "SENDGRID_API_URL": URL + "/v3/", "SENDGRID_API_KEY": KEY,
        "POSTMARK_API_URL": URL + "/", "POSTMARK_SERVER_TOKEN": KEY,
        "RESEND_API_URL": URL + "/", "RESEND_API_KEY": KEY,
        "MAILGUN_API_URL": URL + "/v3", "MAILGUN_API_KEY": KEY, "MAILGUN_SENDER_DOMAIN": "mg.example.com",
        "MAILERSEND_API_URL": URL + "/v1/", "MAILERSEND_API_TOKEN": KEY,
        "BREVO_API_URL": URL + "/v3/", "BREVO_API_KEY": KEY,
        "AMAZON_SES_CLIENT_PARAMS": AWS,
    },
)
django.setup()


def connection(backend, **options):
    return get_connection(f"anymail.backends.{backend}.EmailBackend", **options)


def send(message):
    """Sends, and tells what Anymail knows of each recipient afterwards."""
    count = message.send()
    status = message.anymail_status
    return {
        "count": count, "status": sorted(status.status),
        "ids": {email: [r.status, r.message_id] for email, r in sorted(status.recipients.items())},
    }


def full(name, backend, **attributes):
    message = EmailMultiAlternatives(
        SUBJECT, TEXT, FROM, [ana(name)], cc=[to(name + "-cc")], bcc=[to(name + "-bcc")], reply_to=[HELP],
        headers={"X-Order-Id": "4711"}, connection=connection(backend),
    )
    message.attach_alternative(HTML, "text/html")
    message.attach(INVOICE, PDF, "application/pdf")
    if backend == "brevo":  # has no inline files
        message.attach(LOGO, PNG, "image/png")
    elif backend == "resend":  # Anymail had none before 14
        message.esp_extra = {"attachments": [
            {"filename": INVOICE, "content": b64(PDF)}, {"filename": LOGO, "content": b64(PNG), "content_id": LOGO},
        ]}
    else:
        image = MIMEImage(PNG, "png")
        image["Content-ID"] = f"<{LOGO}>"
        image["Content-Disposition"] = f'inline; filename="{LOGO}"'
        message.attach(image)
    for attribute, value in attributes.items():
        setattr(message, attribute, value)
    return message


def simple(backend, *people, text=TEXT, subject=SUBJECT, using=None, **attributes):
    message = EmailMultiAlternatives(subject, text, FROM, people, connection=using or connection(backend))
    for attribute, value in attributes.items():
        setattr(message, attribute, value)
    return message


# What each backend has of tags, metadata and tracking.
BACKENDS = {
    "sendgrid": {"tags": ["order", "shop"], "metadata": {"customer": 42}, "track_opens": True, "track_clicks": False},
    "postmark": {"tags": ["order"], "metadata": {"customer": "42"}, "track_opens": True, "track_clicks": False},
    "resend": {"tags": ["order", "shop"], "metadata": {"customer": 42}},
    "mailgun": {"tags": ["order", "shop"], "metadata": {"customer": 42}, "track_opens": True, "track_clicks": False},
    "mailersend": {"tags": ["order", "shop"], "track_opens": True, "track_clicks": False},
    "brevo": {"tags": ["order", "shop"], "metadata": {"customer": 42}},
    "amazon_ses": {"tags": ["order"], "metadata": {"customer": 42}},
}

# Where each backend takes its key.
KEYS = {
    "sendgrid": "api_key", "postmark": "server_token", "resend": "api_key", "mailgun": "api_key",
    "mailersend": "api_token", "brevo": "api_key",
}


def each(backend, attributes):
    name = "anymail-" + backend.replace("_", "-")
    scenario(name)(lambda: send(full(name, backend, **attributes)))
    scenario(name + "-invalid")(lambda: send(simple(backend, REFUSED)))
    # Lazy texts and international domains are what Django hands over.
    scenario(name + "-plain")(lambda: send(simple(backend, f"{name}-plain@example.org", subject=gettext_lazy(SUBJECT))))
    if backend in KEYS:
        scenario(name + "-key")(
            lambda: send(simple(backend, to(name + "-key"), using=connection(backend, **{KEYS[backend]: "SG.wrong"})))
        )


for backend, attributes in BACKENDS.items():
    each(backend, attributes)


@scenario("anymail-amazon-ses-key")
def _():
    using = connection("amazon_ses", client_params={**AWS, "aws_secret_access_key": "wrong"})
    return send(simple("amazon_ses", to("anymail-amazon-ses-key"), using=using))


def pair(name):
    return to(name + "-1"), f"Bob <{to(name + '-2')}>"


def names(name):
    return {to(name + "-1"): {"name": "Ana"}, to(name + "-2"): {"name": "Bob"}}


# A message of its own for each recipient, with values in it.


@scenario("anymail-sendgrid-many")
def _():
    name = "anymail-sendgrid-many"
    return send(simple(
        "sendgrid", *pair(name), subject="Hello {{name}}", text="Dear {{name}}, {{other}}", merge_data=names(name),
        merge_metadata={to(name + "-1"): {"customer": "1"}}, esp_extra={"merge_field_format": "{{{{{}}}}}"},
    ))


@scenario("anymail-mailgun-many")
def _():
    name = "anymail-mailgun-many"
    return send(simple(
        "mailgun", *pair(name), subject="Hello %recipient.name%", text="Dear %recipient.name%, %recipient.other%",
        merge_data=names(name), merge_metadata={to(name + "-1"): {"customer": "1"}, to(name + "-2"): {"customer": "2"}},
        merge_headers={to(name + "-1"): {"List-Unsubscribe": "<https://example.com/1>"}},
    ))


@scenario("anymail-mailgun-apart")
def _():
    return send(simple("mailgun", *pair("anymail-mailgun-apart"), merge_data={}))


@scenario("anymail-mailersend-many")
def _():
    name = "anymail-mailersend-many"
    return send(simple(
        "mailersend", *pair(name), subject="Hello {{ name }}", text="Dear {{name}}, {{ other }}",
        merge_data=names(name), esp_extra={"batch_send_mode": "expose-to-list"},
    ))


@scenario("anymail-mailersend-bulk")
def _():
    name = "anymail-mailersend-bulk"
    return send(simple(
        "mailersend", *pair(name), subject="Hello {{ name }}", text="Dear {{name}}, {{ other }}",
        merge_data=names(name), esp_extra={"batch_send_mode": "use-bulk-email"},
    ))


@scenario("anymail-brevo-many")
def _():
    name = "anymail-brevo-many"
    return send(simple(
        "brevo", *pair(name), subject="Hello {{params.name}}", text="Dear {{params.name}}, {{ params.other }}",
        merge_data=names(name), merge_global_data={"other": "all"},
        merge_metadata={to(name + "-1"): {"customer": "1"}},
        merge_headers={to(name + "-1"): {"List-Unsubscribe": "<https://example.com/1>"}},
    ))


@scenario("anymail-postmark-many")
def _():
    name = "anymail-postmark-many"
    return send(simple("postmark", *pair(name), merge_metadata={to(name + "-1"): {"customer": "1"}}))


@scenario("anymail-resend-many")
def _():
    name = "anymail-resend-many"
    return send(simple("resend", *pair(name), merge_metadata={to(name + "-1"): {"customer": "1"}}))


@scenario("anymail-sendgrid-template")
def _():
    return send(simple("sendgrid", to("anymail-sendgrid-template"), template_id="d-1"))


@scenario("anymail-brevo-template")
def _():
    return send(simple("brevo", to("anymail-brevo-template"), template_id=1))


@scenario("anymail-amazon-ses-template")
def _():
    return send(simple("amazon_ses", to("anymail-amazon-ses-template"), subject="", text="", template_id="t"))


# Mailgun has no client of its own in most apps: its documentation posts a form.


def mailgun(path, secret=KEY, **form):
    answer = requests.post(f"{URL}/v3/mg.example.com/{path}", auth=("api", secret), timeout=10, **form)
    answer.raise_for_status()
    return {"status": answer.status_code, **answer.json()}


@scenario("mailgun")
def _():
    return mailgun(
        "messages",
        data={
            "from": FROM, "to": [ana("mailgun"), to("mailgun-2")], "cc": to("mailgun-cc"), "bcc": to("mailgun-bcc"),
            "subject": SUBJECT, "text": TEXT, "html": HTML, "h:Reply-To": HELP, "h:X-Order-Id": "4711",
            "o:tag": ["order", "shop"], "o:tracking": False, "v:customer": "42",
        },
        files=[("attachment", (INVOICE, PDF)), ("inline", (LOGO, PNG))],
    )


@scenario("mailgun-mime")
def _():
    finished = f"From: {SHOP}\nTo: {to('mailgun-mime')}\nSubject: Finished\n\nReady made.\n"
    people = [to("mailgun-mime"), to("mailgun-mime-bcc")]
    return mailgun("messages.mime", data={"to": people}, files={"message": finished})


@scenario("mailgun-test")
def _():
    return mailgun("messages", data={"from": FROM, "to": to("mailgun-test"), "text": TEXT, "o:testmode": True})


@scenario("mailgun-invalid")
def _():
    return mailgun("messages", data={"from": FROM, "to": "not an address", "text": TEXT})


@scenario("mailgun-key")
def _():
    return mailgun("messages", "wrong", data={"from": FROM, "to": to("mailgun-key"), "text": TEXT})


def ses(service="sesv2", **options):
    return boto3.client(service, config=Config(retries={"total_max_attempts": 1}), **{**AWS, **options})


def simple_content(**more):
    return {"Simple": {"Subject": {"Data": SUBJECT}, "Body": {"Text": {"Data": TEXT}}, **more}}


@scenario("ses")
def _():
    message = EmailMessage()
    message["From"], message["To"], message["Cc"] = FROM, ana("ses"), to("ses-cc")
    message["Reply-To"], message["Subject"], message["X-Order-Id"] = HELP, SUBJECT, "4711"
    message.set_content(TEXT)
    message.add_alternative(HTML, subtype="html")
    message.get_payload()[1].add_related(PNG, "image", "png", cid=f"<{LOGO}>", filename=LOGO, disposition="inline")
    message.add_attachment(PDF, "application", "pdf", filename=INVOICE)
    return ses().send_email(
        FromEmailAddress=SHOP, EmailTags=[{"Name": "order", "Value": "1042"}], ConfigurationSetName="shop",
        Destination={"ToAddresses": [to("ses")], "CcAddresses": [to("ses-cc")], "BccAddresses": [to("ses-bcc")]},
        Content={"Raw": {"Data": message.as_bytes()}},
    )


@scenario("ses-simple")
def _():
    return ses().send_email(
        FromEmailAddress=FROM, ReplyToAddresses=[HELP], Destination={"ToAddresses": [ana("ses-simple")]},
        Content=simple_content(Headers=[{"Name": "X-Order-Id", "Value": "4711"}]),
    )


@scenario("ses-invalid")
def _():
    return ses().send_email(
        FromEmailAddress=FROM, Destination={"ToAddresses": ["not an address"]}, Content=simple_content(),
    )


@scenario("ses-template")
def _():
    return ses().send_email(
        FromEmailAddress=FROM, Destination={"ToAddresses": [to("ses-template")]},
        Content={"Template": {"TemplateName": "t", "TemplateData": "{}"}},
    )


@scenario("ses-key")
def _():
    return ses(aws_secret_access_key="wrong").send_email(
        FromEmailAddress=FROM, Destination={"ToAddresses": [to("ses-key")]}, Content=simple_content(),
    )


main()
