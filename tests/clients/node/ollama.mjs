// What the README of npm `ollama` shows; prints what came back as JSON.
import { Ollama } from "ollama";

const [url, small, coder, minilm] = process.argv.slice(2);
const ollama = new Ollama({ host: url });
const messages = [{ role: "user", content: "Why is the sky blue?" }];
const options = { temperature: 0, seed: 1, num_predict: 24 };
const found = {};

found.chat = await ollama.chat({ model: small, messages, options });

found.parts = [];
for await (const part of await ollama.chat({ model: small, messages, options, stream: true })) {
  found.parts.push(part);
}

found.tools = await ollama.chat({
  model: coder,
  messages: [{ role: "user", content: "What is 12345 plus 67890? Use the tool." }],
  tools: [
    {
      type: "function",
      function: {
        name: "add",
        description: "Add two numbers",
        parameters: {
          type: "object",
          required: ["a", "b"],
          properties: {
            a: { type: "number", description: "The first number" },
            b: { type: "number", description: "The second number" },
          },
        },
      },
    },
  ],
  options: { temperature: 0, num_predict: 128 },
});

found.structured = await ollama.chat({
  model: small,
  messages,
  format: { type: "object", properties: { hot: { type: "boolean" } }, required: ["hot"], additionalProperties: false },
  options: { temperature: 0, num_predict: 64 },
});

found.embed = await ollama.embed({ model: minilm, input: ["The sky is blue.", "Grass is green."] });
found.list = await ollama.list();
found.show = await ollama.show({ model: small });

await ollama.create({ model: "node-mario", from: small, system: "You are Mario." });
await ollama.copy({ source: "node-mario", destination: "node-luigi" });
found.names = (await ollama.list()).models.map((model) => model.name);
await ollama.delete({ model: "node-mario" });
await ollama.delete({ model: "node-luigi" });
found.after = (await ollama.list()).models.map((model) => model.name);

const stream = await ollama.generate({ model: small, prompt: "Count to a thousand.", stream: true });
try {
  for await (const _ of stream) stream.abort();
} catch (error) {
  found.aborted = error.name;
}

try {
  await ollama.chat({ model: "nothing-of-this-name", messages });
} catch (error) {
  found.error = { name: error.name, message: error.message, status: error.status_code };
}
console.log(JSON.stringify(found));
