// What the READMEs of npm `openai` and `@anthropic-ai/sdk` show; prints what came back as JSON.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const [url, small] = process.argv.slice(2);
const messages = [{ role: "user", content: "Why is the sky blue?" }];
const found = {};

const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const asked = { model: small, messages, temperature: 0, seed: 1, max_tokens: 24 };
found.chat = await openai.chat.completions.create(asked);
found.chunks = [];
for await (const chunk of await openai.chat.completions.create({ ...asked, stream: true })) {
  found.chunks.push(chunk);
}
found.events = [];
const response = { model: small, input: "Say hello.", temperature: 0, max_output_tokens: 16 };
for await (const event of await openai.responses.create({ ...response, stream: true })) {
  found.events.push(event.type);
}
try {
  await openai.chat.completions.create({ ...asked, model: "nothing-of-this-name" });
} catch (error) {
  found.error = { status: error.status, isNotFound: error instanceof OpenAI.NotFoundError };
}

const anthropic = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });
const wanted = { model: small, messages, max_tokens: 24, temperature: 0 };
found.message = await anthropic.messages.create(wanted);
const stream = anthropic.messages.stream(wanted);
found.streamed = await stream.finalMessage();
console.log(JSON.stringify(found));
