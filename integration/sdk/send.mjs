// Sends mail with the providers' own clients for Node, each with nothing but
// its base URL changed, and prints what they made of the answers as JSON:
// {"name": {"value": …} or {"error": …}}. The test beside it reads what arrived.
//
// usage: node send.mjs URL KEY-NAME KEY
import sendgrid from '@sendgrid/mail'
import postmark from 'postmark'
import { Resend } from 'resend'
import Mailgun from 'mailgun.js'
import FormData from 'form-data'
import { MailerSend, EmailParams, Sender, Recipient, Attachment } from 'mailersend'
import { BrevoClient } from '@getbrevo/brevo'
import { SESv2Client, SendEmailCommand } from '@aws-sdk/client-sesv2'
import nodemailer from 'nodemailer'

const [url, keyName, key] = process.argv.slice(2)
const { host } = new URL(url)

const from = { email: 'shop@example.com', name: 'Müller & Söhne, Köln' }
const quoted = '"Müller & Söhne, Köln" <shop@example.com>'
const subject = 'Ihre Bestellung № 1042 — grüße'
const text = 'Dear Ana,\n\n.a leading dot, a trailing blank \nund Umlaute: äöü €\n'
const html = '<p>Grüße</p><img src="cid:logo.png">'
const pdf = Buffer.from(Array.from({ length: 3000 }, (_, i) => (i * 7) % 256))
const png = Buffer.from(Array.from({ length: 200 }, (_, i) => 255 - i))
const to = (name) => `${name}@example.org`

function sendgridClient(secret = key) {
  sendgrid.setApiKey(secret)
  sendgrid.client.setDefaultRequest('baseUrl', url)
  return sendgrid
}
const postmarkClient = (token = key) => new postmark.ServerClient(token, { useHttps: false, requestHost: host })
const resendClient = (secret = key) => new Resend(secret, { baseUrl: url })
const mailgunClient = (secret = key) => new Mailgun(FormData).client({ username: 'api', key: secret, url })
const mailersendClient = (secret = key) => {
  const client = new MailerSend({ apiKey: secret })
  client.email.baseUrl = url + '/v1'
  return client
}
const brevoClient = (secret = key) => new BrevoClient({ apiKey: secret, baseUrl: url + '/v3', maxRetries: 0 })
const sesClient = (secret = key) => new SESv2Client({
  endpoint: url, region: 'eu-central-1', maxAttempts: 1, credentials: { accessKeyId: keyName, secretAccessKey: secret },
})

const scenarios = {
  async sendgrid() {
    const [response, body] = await sendgridClient().send({
      from, to: [{ email: to('sendgrid'), name: 'Ana Gómez' }], cc: to('sendgrid-cc'), bcc: to('sendgrid-bcc'),
      replyTo: { email: 'help@example.com', name: 'Help' }, subject, text, html,
      headers: { 'X-Order-Id': '4711' }, categories: ['order'], customArgs: { customer: '42' },
      attachments: [
        { content: pdf.toString('base64'), filename: 'Rechnung März.pdf', type: 'application/pdf', disposition: 'attachment' },
        { content: png.toString('base64'), filename: 'logo.png', type: 'image/png', disposition: 'inline', contentId: 'logo.png' },
      ],
    })
    return { status: response.statusCode, id: response.headers['x-message-id'], body }
  },
  async 'sendgrid-many'() {
    const [response] = await sendgridClient().send({
      from, subject: 'Hello {{name}}', text: 'Dear {{name}}, $& {{other}}', substitutionWrappers: ['{{', '}}'],
      personalizations: [
        { to: to('sendgrid-many-1'), substitutions: { name: 'Ana' } },
        { to: to('sendgrid-many-2'), substitutions: { name: '{{name}} $1' } },
      ],
    })
    return { status: response.statusCode, id: response.headers['x-message-id'] }
  },
  async 'sendgrid-sandbox'() {
    const [response] = await sendgridClient().send({
      from, to: to('sendgrid-sandbox'), subject, text, mailSettings: { sandboxMode: { enable: true } },
    })
    return { status: response.statusCode }
  },
  async 'sendgrid-invalid'() {
    await sendgridClient().send({ from, to: [to('sendgrid-ok'), 'not an address'], subject, text })
  },
  async 'sendgrid-template'() {
    await sendgridClient().send({ from, to: to('sendgrid-template'), templateId: 'd-1234', dynamicTemplateData: { a: 1 } })
  },
  async 'sendgrid-key'() {
    await sendgridClient('SG.wrong').send({ from, to: to('sendgrid-key'), subject, text })
  },

  async postmark() {
    return postmarkClient().sendEmail({
      From: quoted, To: `Ana Gómez <${to('postmark')}>, ${to('postmark-2')}`, Cc: to('postmark-cc'), Bcc: to('postmark-bcc'),
      ReplyTo: 'help@example.com', Subject: subject, TextBody: text, HtmlBody: html, Tag: 'order', Metadata: { customer: '42' },
      TrackOpens: true, MessageStream: 'outbound', Headers: [{ Name: 'X-Order-Id', Value: '4711' }],
      Attachments: [
        { Name: 'Rechnung März.pdf', Content: pdf.toString('base64'), ContentType: 'application/pdf', ContentID: null },
        { Name: 'logo.png', Content: png.toString('base64'), ContentType: 'image/png', ContentID: 'cid:logo.png' },
      ],
    })
  },
  async 'postmark-batch'() {
    return postmarkClient().sendEmailBatch([
      { From: quoted, To: to('postmark-batch-1'), Subject: subject, TextBody: text },
      { From: quoted, To: 'not an address', Subject: subject, TextBody: text },
      { From: quoted, To: to('postmark-batch-3'), Subject: subject, TextBody: text },
    ])
  },
  async 'postmark-invalid'() {
    return postmarkClient().sendEmail({ From: quoted, To: 'not an address', Subject: subject, TextBody: text })
  },
  async 'postmark-template'() {
    return postmarkClient().sendEmailWithTemplate({ From: quoted, To: to('postmark-template'), TemplateId: 1, TemplateModel: {} })
  },
  async 'postmark-key'() {
    return postmarkClient('wrong').sendEmail({ From: quoted, To: to('postmark-key'), Subject: subject, TextBody: text })
  },
  async 'postmark-test'() {
    return postmarkClient('POSTMARK_API_TEST').sendEmail({ From: quoted, To: to('postmark-test'), Subject: subject, TextBody: text })
  },

  async resend() {
    return resendClient().emails.send({
      from: quoted, to: [to('resend')], cc: to('resend-cc'), bcc: [to('resend-bcc')], replyTo: 'help@example.com',
      subject, text, html, headers: { 'X-Order-Id': '4711' }, tags: [{ name: 'order', value: '1042' }],
      attachments: [
        { filename: 'Rechnung März.pdf', content: pdf },
        { filename: 'logo.png', content: png.toString('base64'), contentType: 'image/png', contentId: 'logo.png' },
      ],
    }, { idempotencyKey: 'resend-order-1042' })
  },
  async 'resend-again'() {
    const mail = { from: quoted, to: to('resend-again'), subject, text }
    const first = await resendClient().emails.send(mail, { idempotencyKey: 'again' })
    const second = await resendClient().emails.send(mail, { idempotencyKey: 'again' })
    const other = await resendClient().emails.send({ ...mail, text: 'other' }, { idempotencyKey: 'again' })
    return { first, second, other }
  },
  async 'resend-batch'() {
    const good = (name) => ({ from: quoted, to: to(name), subject, text })
    const bad = { from: quoted, to: 'not an address', subject, text }
    return {
      strict: await resendClient().batch.send([good('resend-strict'), bad]),
      permissive: await resendClient().batch.send([good('resend-permissive'), bad], { batchValidation: 'permissive' }),
      all: await resendClient().batch.send([good('resend-batch-1'), good('resend-batch-2')]),
    }
  },
  async 'resend-invalid'() { return resendClient().emails.send({ from: quoted, to: 'not an address', subject, text }) },
  async 'resend-url'() {
    return resendClient().emails.send({
      from: quoted, to: to('resend-url'), subject, text, attachments: [{ path: 'http://169.254.169.254/latest', filename: 'x' }],
    })
  },
  async 'resend-later'() {
    return resendClient().emails.send({ from: quoted, to: to('resend-later'), subject, text, scheduledAt: 'in 2 hours' })
  },
  async 'resend-change'() {
    const { emails } = new Resend(key, { baseUrl: url + '/' })
    const later = new Date(Date.now() + 3 * 3600e3)
    const { data: { id } } = await emails.send({ from: quoted, to: to('resend-change'), subject, text, scheduledAt: 'in 2 hours' })
    const updated = await emails.update({ id, scheduledAt: later.toISOString() })
    const { data: shown } = await emails.get(id)
    const canceled = await emails.cancel(id)
    const { data: after } = await emails.get(id)
    const again = await emails.cancel(id)
    return {
      updated: updated.data.id === id, to: shown.to, subject: shown.subject, last: shown.last_event, moved: Math.abs(new Date(shown.scheduled_at) - later) < 2,
      canceled: canceled.data.id === id, after: after.last_event, again: again.error ?? again.data.id === id,
    }
  },
  async 'resend-get'() { return resendClient().emails.get('00000000-0000-0000-0000-000000000000') },
  async 'resend-key'() { return resendClient('re_wrong').emails.send({ from: quoted, to: to('resend-key'), subject, text }) },

  async mailgun() {
    return mailgunClient().messages.create('mg.example.com', {
      from: quoted, to: [`Ana Gómez <${to('mailgun')}>`, to('mailgun-2')], cc: to('mailgun-cc'), bcc: to('mailgun-bcc'),
      subject, text, html, 'h:Reply-To': 'help@example.com', 'h:X-Order-Id': '4711', 'o:tag': ['order', 'shop'],
      'o:tracking': false, 'v:customer': '42',
      attachment: [{ data: pdf, filename: 'Rechnung März.pdf', contentType: 'application/pdf' }],
      inline: [{ data: png, filename: 'logo.png' }],
    })
  },
  async 'mailgun-many'() {
    return mailgunClient().messages.create('mg.example.com', {
      from: quoted, to: [to('mailgun-many-1'), to('mailgun-many-2')], subject: 'Hello %recipient.name%',
      text: 'Dear %recipient.name%, %recipient.other%',
      'recipient-variables': JSON.stringify({ [to('mailgun-many-1')]: { name: 'Ana' }, [to('mailgun-many-2')]: { name: 'Bob' } }),
    })
  },
  async 'mailgun-mime'() {
    const message = `From: ${'shop@example.com'}\nTo: ${to('mailgun-mime')}\nBcc: ${to('mailgun-mime-bcc')}\nSubject: Finished\n\nReady made.\n`
    return mailgunClient().messages.create('mg.example.com', { to: [to('mailgun-mime'), to('mailgun-mime-bcc')], message: Buffer.from(message) })
  },
  async 'mailgun-test'() {
    return mailgunClient().messages.create('mg.example.com', { from: quoted, to: to('mailgun-test'), subject, text, 'o:testmode': true })
  },
  async 'mailgun-invalid'() {
    return mailgunClient().messages.create('mg.example.com', { from: quoted, to: 'not an address', subject, text })
  },
  async 'mailgun-key'() {
    return mailgunClient('wrong').messages.create('mg.example.com', { from: quoted, to: to('mailgun-key'), subject, text })
  },

  async mailersend() {
    const params = new EmailParams()
      .setFrom(new Sender(from.email, from.name)).setTo([new Recipient(to('mailersend'), 'Ana Gómez')])
      .setCc([new Recipient(to('mailersend-cc'), 'Carl')]).setBcc([new Recipient(to('mailersend-bcc'), 'Bea')])
      .setReplyTo(new Sender('help@example.com', 'Help')).setSubject(subject).setText(text).setHtml(html).setTags(['order'])
      .setAttachments([
        new Attachment(pdf.toString('base64'), 'Rechnung März.pdf', 'attachment'),
        new Attachment(png.toString('base64'), 'logo.png', 'inline', 'logo.png'),
      ])
    return mailersendClient().email.send(params)
  },
  async 'mailersend-many'() {
    const params = new EmailParams()
      .setFrom(new Sender(from.email, from.name)).setTo([new Recipient(to('mailersend-many-1')), new Recipient(to('mailersend-many-2'))])
      .setSubject('Hello {{ name }}').setText('Dear {{name}}, {{ other }}')
      .setPersonalization([
        { email: to('mailersend-many-1'), data: { name: 'Ana' } }, { email: to('mailersend-many-2'), data: { name: 'Bob' } },
      ])
    return mailersendClient().email.send(params)
  },
  async 'mailersend-bulk'() {
    const one = (name) => new EmailParams().setFrom(new Sender(from.email, from.name)).setTo([new Recipient(to(name))])
      .setSubject(subject).setText(text)
    return mailersendClient().email.sendBulk([one('mailersend-bulk-1'), one('mailersend-bulk-2')])
  },
  async 'mailersend-invalid'() {
    const params = new EmailParams().setFrom(new Sender(from.email, from.name))
      .setTo([new Recipient(to('mailersend-ok')), new Recipient('not an address')]).setSubject(subject).setText(text)
    return mailersendClient().email.send(params)
  },
  async 'mailersend-key'() {
    const params = new EmailParams().setFrom(new Sender(from.email)).setTo([new Recipient(to('mailersend-key'))])
      .setSubject(subject).setText(text)
    return mailersendClient('wrong').email.send(params)
  },

  async brevo() {
    return brevoClient().transactionalEmails.sendTransacEmail({
      sender: from, to: [{ email: to('brevo'), name: 'Ana Gómez' }], cc: [{ email: to('brevo-cc') }], bcc: [{ email: to('brevo-bcc') }],
      replyTo: { email: 'help@example.com', name: 'Help' }, subject: subject + ' {{ params.order }}', textContent: text, htmlContent: html,
      headers: { 'X-Order-Id': '4711' }, tags: ['order'], params: { order: 1042 },
      attachment: [{ name: 'Rechnung März.pdf', content: pdf.toString('base64') }, { name: 'logo.png', content: png.toString('base64') }],
    })
  },
  async 'brevo-many'() {
    return brevoClient().transactionalEmails.sendTransacEmail({
      sender: from, subject: 'Hello {{params.name}}', textContent: 'Dear {{params.name}}',
      messageVersions: [
        { to: [{ email: to('brevo-many-1') }], params: { name: 'Ana' } },
        { to: [{ email: to('brevo-many-2') }], params: { name: 'Bob' } },
      ],
    })
  },
  async 'brevo-invalid'() {
    return brevoClient().transactionalEmails.sendTransacEmail({ sender: from, to: [{ email: 'not an address' }], subject, textContent: text })
  },
  async 'brevo-key'() {
    return brevoClient('wrong').transactionalEmails.sendTransacEmail({ sender: from, to: [{ email: to('brevo-key') }], subject, textContent: text })
  },

  async ses() {
    return sesClient().send(new SendEmailCommand({
      FromEmailAddress: quoted, ReplyToAddresses: ['help@example.com'],
      Destination: { ToAddresses: [`Ana Gómez <${to('ses')}>`], CcAddresses: [to('ses-cc')], BccAddresses: [to('ses-bcc')] },
      EmailTags: [{ Name: 'order', Value: '1042' }], ConfigurationSetName: 'shop',
      Content: { Simple: {
        Subject: { Data: subject, Charset: 'UTF-8' }, Body: { Text: { Data: text }, Html: { Data: html } },
        Headers: [{ Name: 'X-Order-Id', Value: '4711' }],
        Attachments: [
          { RawContent: pdf, FileName: 'Rechnung März.pdf', ContentType: 'application/pdf', ContentDisposition: 'ATTACHMENT' },
          { RawContent: png, FileName: 'logo.png', ContentType: 'image/png', ContentDisposition: 'INLINE', ContentId: 'logo.png' },
        ],
      } },
    }))
  },
  async 'ses-nodemailer'() {
    const transport = nodemailer.createTransport({ SES: { sesClient: sesClient(), SendEmailCommand } })
    const info = await transport.sendMail({
      from: { name: from.name, address: from.email }, to: { name: 'Ana Gómez', address: to('ses-nodemailer') },
      cc: to('ses-nodemailer-cc'), bcc: to('ses-nodemailer-bcc'), replyTo: 'help@example.com', subject, text, html,
      headers: { 'X-Order-Id': '4711' },
      attachments: [
        { filename: 'Rechnung März.pdf', content: pdf, contentType: 'application/pdf' },
        { filename: 'logo.png', content: png, cid: 'logo.png' },
      ],
    })
    return { messageId: info.messageId, envelope: info.envelope }
  },
  async 'ses-invalid'() {
    return sesClient().send(new SendEmailCommand({
      FromEmailAddress: quoted, Destination: { ToAddresses: ['not an address'] },
      Content: { Simple: { Subject: { Data: subject }, Body: { Text: { Data: text } } } },
    }))
  },
  async 'ses-key'() {
    return sesClient('wrong').send(new SendEmailCommand({
      FromEmailAddress: quoted, Destination: { ToAddresses: [to('ses-key')] },
      Content: { Simple: { Subject: { Data: subject }, Body: { Text: { Data: text } } } },
    }))
  },
}

// plain keeps what a program could read of an error.
function plain(error) {
  if (!(error instanceof Error)) return error
  const { name, message, code, status, statusCode, details, response, recipients, body, $metadata } = error
  return { class: error.constructor.name, name, message, code, status, statusCode, details, recipients, body, response: response?.body, httpStatus: $metadata?.httpStatusCode }
}

const answers = {}
for (const [name, scenario] of Object.entries(scenarios)) {
  try {
    answers[name] = { value: await scenario() }
  } catch (error) {
    answers[name] = { error: plain(error) }
  }
}
console.log(JSON.stringify(answers, null, 1))
