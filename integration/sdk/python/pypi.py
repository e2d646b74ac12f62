"""Sends with the providers' own clients for Python, which Debian has not.
requirements.txt pins them.

usage: python3 pypi.py URL KEY-NAME KEY
"""

import asyncio

import boto3
import brevo
import brevo.transactional_emails as brevo_types
import mailersend
import postmark
import resend
import sendgrid
import sib_api_v3_sdk
from botocore.config import Config
from mailgun.client import Client as MailgunClient
from postmarker.core import PostmarkClient
from sendgrid.helpers import mail as sg

from common import (
    FROM, HELP, HTML, INVOICE, KEY, KEY_NAME, LOGO, NAME, PDF, PNG, REFUSED, SHOP, SUBJECT, TEXT, URL,
    ana, b64, main, scenario, to,
)

# SendGrid


def sendgrid_send(message, key=KEY):
    answer = sendgrid.SendGridAPIClient(key, host=URL).send(message)
    return {"status": answer.status_code, "id": answer.headers["X-Message-Id"], "body": answer.body}


def sendgrid_mail(*people):
    message = sg.Mail(sg.Email(SHOP, NAME), subject=SUBJECT, plain_text_content=TEXT)
    message.to = [sg.To(address) for address in people]
    return message


@scenario("sendgrid")
def _():
    message = sg.Mail(sg.From(SHOP, NAME), sg.To(to("sendgrid"), "Ana Gómez"), SUBJECT, TEXT, HTML)
    message.cc, message.bcc = sg.Cc(to("sendgrid-cc")), sg.Bcc(to("sendgrid-bcc"))
    message.reply_to = sg.ReplyTo(HELP, "Help")
    message.header, message.category = sg.Header("X-Order-Id", "4711"), sg.Category("order")
    message.custom_arg = sg.CustomArg("customer", "42")
    message.tracking_settings = sg.TrackingSettings(click_tracking=sg.ClickTracking(False, False))
    message.attachment = [
        sg.Attachment(sg.FileContent(b64(PDF)), sg.FileName(INVOICE), sg.FileType("application/pdf"), sg.Disposition("attachment")),
        sg.Attachment(sg.FileContent(b64(PNG)), sg.FileName(LOGO), sg.FileType("image/png"), sg.Disposition("inline"), sg.ContentId(LOGO)),
    ]
    return sendgrid_send(message)


@scenario("sendgrid-many")
def _():
    people = [
        sg.To(to("sendgrid-many-1"), substitutions={"-name-": "Ana"}),
        sg.To(to("sendgrid-many-2"), substitutions={"-name-": "Bob"}),
    ]
    return sendgrid_send(sg.Mail(sg.From(SHOP), people, "Hello -name-", "Dear -name-, -other-", is_multiple=True))


@scenario("sendgrid-sandbox")
def _():
    message = sendgrid_mail(to("sendgrid-sandbox"))
    message.mail_settings = sg.MailSettings(sandbox_mode=sg.SandBoxMode(True))
    return sendgrid_send(message)


@scenario("sendgrid-invalid")
def _():
    return sendgrid_send(sendgrid_mail(to("sendgrid-ok"), REFUSED))


@scenario("sendgrid-key")
def _():
    return sendgrid_send(sendgrid_mail(to("sendgrid-key")), "SG.wrong")


# Postmark: postmarker, and the one of Postmark itself.


def postmarker(key=KEY):
    return PostmarkClient(server_token=key, root_api_url=URL + "/").emails


@scenario("postmarker")
def _():
    return postmarker().send(
        From=FROM, To=[ana("postmarker")], Cc=to("postmarker-cc"), Bcc=to("postmarker-bcc"), ReplyTo=HELP,
        Subject=SUBJECT, TextBody=TEXT, HtmlBody=HTML, Tag="order", Metadata={"customer": "42"}, TrackOpens=True,
        Headers={"X-Order-Id": "4711"},
        Attachments=[(INVOICE, b64(PDF), "application/pdf"), (LOGO, b64(PNG), "image/png", "cid:" + LOGO)],
    )


@scenario("postmarker-batch")
def _():
    return postmarker().send_batch(
        {"From": FROM, "To": to("postmarker-batch-1"), "Subject": SUBJECT, "TextBody": TEXT},
        {"From": FROM, "To": REFUSED, "Subject": SUBJECT, "TextBody": TEXT},
    )


@scenario("postmarker-invalid")
def _():
    return postmarker().send(From=FROM, To=REFUSED, Subject=SUBJECT, TextBody=TEXT)


@scenario("postmarker-key")
def _():
    return postmarker("wrong").send(From=FROM, To=to("postmarker-key"), Subject=SUBJECT, TextBody=TEXT)


def postmark_send(message, key=KEY):
    async def send():
        async with postmark.ServerClient(key, base_url=URL) as client:
            return await client.outbound.send(message)

    return asyncio.run(send())


def postmark_mail(address):
    return {"sender": FROM, "to": address, "subject": SUBJECT, "text_body": TEXT}


@scenario("postmark")
def _():
    return postmark_send({
        **postmark_mail(f"{ana('postmark')}, {to('postmark-2')}"), "cc": to("postmark-cc"), "bcc": to("postmark-bcc"),
        "reply_to": HELP, "html_body": HTML, "tag": "order", "metadata": {"customer": "42"}, "track_opens": True,
        "headers": [{"name": "X-Order-Id", "value": "4711"}],
        "attachments": [
            {"name": INVOICE, "content": b64(PDF), "content_type": "application/pdf"},
            {"name": LOGO, "content": b64(PNG), "content_type": "image/png", "content_id": "cid:" + LOGO},
        ],
    })


@scenario("postmark-invalid")
def _():
    return postmark_send(postmark_mail(REFUSED))


@scenario("postmark-key")
def _():
    return postmark_send(postmark_mail(to("postmark-key")), "wrong")


# Resend


def resend_with(send, *args, key=KEY):
    resend.api_url, resend.api_key = URL, key
    return send(*args)


def resend_mail(*people):
    return {"from": FROM, "to": list(people), "subject": SUBJECT, "text": TEXT}


@scenario("resend")
def _():
    return resend_with(resend.Emails.send, {
        **resend_mail(to("resend")), "cc": to("resend-cc"), "bcc": [to("resend-bcc")], "reply_to": HELP, "html": HTML,
        "headers": {"X-Order-Id": "4711"}, "tags": [{"name": "order", "value": "1042"}],
        "attachments": [
            {"filename": INVOICE, "content": list(PDF)},
            {"filename": LOGO, "content": b64(PNG), "content_type": "image/png", "content_id": LOGO},
        ],
    })


@scenario("resend-again")
def _():
    mail, options = resend_mail(to("resend-again")), {"idempotency_key": "python-again"}
    return [resend_with(resend.Emails.send, mail, options), resend_with(resend.Emails.send, mail, options)]


@scenario("resend-reused")
def _():
    options = {"idempotency_key": "python-again"}
    return resend_with(resend.Emails.send, resend_mail(to("resend-reused")), options)


@scenario("resend-batch")
def _():
    return resend_with(resend.Batch.send, [resend_mail(to("resend-batch-1")), resend_mail(to("resend-batch-2"))])


@scenario("resend-permissive")
def _():
    mails = [resend_mail(to("resend-permissive")), resend_mail(REFUSED)]
    return resend_with(resend.Batch.send, mails, {"batch_validation": "permissive"})


@scenario("resend-invalid")
def _():
    return resend_with(resend.Emails.send, resend_mail(REFUSED))


@scenario("resend-incomplete")
def _():
    return resend_with(resend.Emails.send, {"from": FROM, "to": to("resend-incomplete"), "text": TEXT})


@scenario("resend-key")
def _():
    return resend_with(resend.Emails.send, resend_mail(to("resend-key")), key="re_wrong")


# Mailgun


def mailgun(key=KEY, files=None, **data):
    with MailgunClient(auth=("api", key), api_url=URL) as client:
        answer = client.messages.create(domain="mg.example.com", data=data, files=files)
    return {"status": answer.status_code, **answer.json()}


@scenario("mailgun")
def _():
    return mailgun(
        files=[("attachment", (INVOICE, PDF)), ("inline", (LOGO, PNG))],
        **{
            "from": FROM, "to": [ana("mailgun"), to("mailgun-2")], "cc": to("mailgun-cc"), "bcc": to("mailgun-bcc"),
            "subject": SUBJECT, "text": TEXT, "html": HTML, "h:Reply-To": HELP, "h:X-Order-Id": "4711",
            "o:tag": ["order", "shop"], "o:tracking": "no", "v:customer": "42",
        },
    )


@scenario("mailgun-invalid")
def _():
    return mailgun(**{"from": FROM, "to": "not an address", "subject": SUBJECT, "text": TEXT})


@scenario("mailgun-key")
def _():
    return mailgun("wrong", **{"from": FROM, "to": to("mailgun-key"), "subject": SUBJECT, "text": TEXT})


# MailerSend


def mailersend_client(key=KEY):
    return mailersend.MailerSendClient(api_key=key, base_url=URL + "/v1/").emails


def mailersend_mail(*people):
    builder = mailersend.EmailBuilder().from_email(SHOP, NAME).subject(SUBJECT).text(TEXT)
    for address in people:
        builder.to(address)
    return builder


@scenario("mailersend")
def _():
    builder = mailersend_mail().to(to("mailersend"), "Ana Gómez").cc(to("mailersend-cc")).bcc(to("mailersend-bcc"))
    builder.reply_to(HELP, "Help").html(HTML).tag("order").header("X-Order-Id", "4711").track_opens(True)
    request = builder.build()
    request.attachments = [
        mailersend.EmailAttachment(content=b64(PDF), filename=INVOICE, disposition="attachment"),
        mailersend.EmailAttachment(content=b64(PNG), filename=LOGO, disposition="inline", id=LOGO),
    ]
    return mailersend_client().send(request)


@scenario("mailersend-many")
def _():
    builder = mailersend_mail(to("mailersend-many-1"), to("mailersend-many-2"))
    builder.subject("Hello {{ name }}").text("Dear {{name}}, {{ other }}")
    builder.personalize(to("mailersend-many-1"), name="Ana").personalize(to("mailersend-many-2"), name="Bob")
    return mailersend_client().send(builder.build())


@scenario("mailersend-bulk")
def _():
    return mailersend_client().send_bulk([
        mailersend_mail(to("mailersend-bulk-1")).build(), mailersend_mail(to("mailersend-bulk-2")).build(),
    ])


@scenario("mailersend-invalid")
def _():
    request = mailersend_mail(to("mailersend-ok")).header("Subject", "another").build()
    return mailersend_client().send(request)


@scenario("mailersend-key")
def _():
    return mailersend_client("wrong").send(mailersend_mail(to("mailersend-key")).build())


# Brevo: the present client, and the one of before.


def brevo_send(key=KEY, **mail):
    client = brevo.Brevo(api_key=key, base_url=URL + "/v3")
    mail.setdefault("sender", brevo_types.SendTransacEmailRequestSender(email=SHOP, name=NAME))
    return client.transactional_emails.send_transac_email(**mail)


def brevo_to(address, name=None):
    return brevo_types.SendTransacEmailRequestToItem(email=address, name=name)


@scenario("brevo")
def _():
    return brevo_send(
        to=[brevo_to(to("brevo"), "Ana Gómez")], cc=[{"email": to("brevo-cc")}], bcc=[{"email": to("brevo-bcc")}],
        reply_to={"email": HELP, "name": "Help"}, subject=SUBJECT + " {{ params.order }}", text_content=TEXT, html_content=HTML,
        headers={"X-Order-Id": "4711"}, tags=["order"], params={"order": 1042},
        attachment=[{"name": INVOICE, "content": b64(PDF)}, {"name": LOGO, "content": b64(PNG)}],
    )


@scenario("brevo-many")
def _():
    version = brevo_types.SendTransacEmailRequestMessageVersionsItem
    person = brevo_types.SendTransacEmailRequestMessageVersionsItemToItem
    return brevo_send(
        subject="Hello {{params.name}}", text_content="Dear {{params.name}}",
        message_versions=[
            version(to=[person(email=to("brevo-many-1"))], params={"name": "Ana"}),
            version(to=[person(email=to("brevo-many-2"))], params={"name": "Bob"}),
        ],
    )


@scenario("brevo-invalid")
def _():
    return brevo_send(to=[brevo_to(REFUSED)], subject=SUBJECT, text_content=TEXT)


@scenario("brevo-key")
def _():
    return brevo_send("wrong", to=[brevo_to(to("brevo-key"))], subject=SUBJECT, text_content=TEXT)


def sib_send(key=KEY, **mail):
    configuration = sib_api_v3_sdk.Configuration()
    configuration.host, configuration.api_key["api-key"] = URL + "/v3", key
    api = sib_api_v3_sdk.TransactionalEmailsApi(sib_api_v3_sdk.ApiClient(configuration))
    return api.send_transac_email(sib_api_v3_sdk.SendSmtpEmail(
        sender={"email": SHOP, "name": NAME}, subject=SUBJECT, text_content=TEXT, **mail,
    ))


@scenario("sib")
def _():
    return sib_send(
        to=[{"email": to("sib"), "name": "Ana Gómez"}], cc=[{"email": to("sib-cc")}], bcc=[{"email": to("sib-bcc")}],
        reply_to={"email": HELP}, html_content=HTML, headers={"X-Order-Id": "4711"}, tags=["order"],
        attachment=[{"name": INVOICE, "content": b64(PDF)}, {"name": LOGO, "content": b64(PNG)}],
    )


@scenario("sib-invalid")
def _():
    return sib_send(to=[{"email": REFUSED}])


@scenario("sib-key")
def _():
    return sib_send("wrong", to=[{"email": to("sib-key")}])


# SES: attachments of Simple content are newer than Debian's boto3.


@scenario("ses")
def _():
    client = boto3.client(
        "sesv2", endpoint_url=URL, region_name="eu-central-1", aws_access_key_id=KEY_NAME, aws_secret_access_key=KEY,
        config=Config(retries={"total_max_attempts": 1}),
    )
    return client.send_email(
        FromEmailAddress=FROM, ReplyToAddresses=[HELP], ConfigurationSetName="shop",
        Destination={"ToAddresses": [ana("ses")], "CcAddresses": [to("ses-cc")], "BccAddresses": [to("ses-bcc")]},
        EmailTags=[{"Name": "order", "Value": "1042"}],
        Content={"Simple": {
            "Subject": {"Data": SUBJECT, "Charset": "UTF-8"},
            "Body": {"Text": {"Data": TEXT, "Charset": "UTF-8"}, "Html": {"Data": HTML, "Charset": "UTF-8"}},
            "Headers": [{"Name": "X-Order-Id", "Value": "4711"}],
            "Attachments": [
                {"RawContent": PDF, "FileName": INVOICE, "ContentType": "application/pdf"},
                {"RawContent": PNG, "FileName": LOGO, "ContentDisposition": "INLINE", "ContentId": LOGO},
            ],
        }},
    )


main()
