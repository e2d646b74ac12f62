// The service that a Node shop writes: nodemailer's pool behind node:http. The
// answer is the relay's verdict.
//
// usage: node server.js LISTEN_PORT RELAY_PORT CA_FILE CONNECTIONS
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import nodemailer from "nodemailer";

const [listenPort, relayPort, caFile, connections] = process.argv.slice(2);

const transport = nodemailer.createTransport({
  pool: true,
  maxConnections: Number(connections),
  maxMessages: Infinity,
  host: "localhost",
  port: Number(relayPort),
  requireTLS: true,
  auth: { user: "bench", pass: "bench" },
  tls: { ca: readFileSync(caFile) },
});

async function body(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString("utf8"));
}

function mail(m) {
  return {
    from: m.from,
    to: m.to,
    subject: m.subject,
    text: m.text,
    html: m.html,
    headers: m.headers,
    attachments: (m.attachments ?? []).map((a) => ({
      filename: a.filename,
      content: a.content,
      encoding: "base64",
      contentType: a.content_type,
    })),
  };
}

const server = createServer(async (request, response) => {
  let status = 200;
  let answer;
  try {
    const info = await transport.sendMail(mail(await body(request)));
    answer = { status: "delivered", message_id: info.messageId };
  } catch (error) {
    status = 502;
    answer = { error: error.message };
  }
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(JSON.stringify(answer));
});
server.keepAliveTimeout = 60_000;
server.listen(Number(listenPort), "127.0.0.1");
