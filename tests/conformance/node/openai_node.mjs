// The official Node SDK, feature by feature: exits with 1 at the first thing that is not as it should be.
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ maxRetries: 0 });
const model = process.env.OPENAI_MODEL;
const messages = [{ role: "user", content: "hello" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

const checks = {
  async chat() {
    const answer = await client.chat.completions.create({ model, messages, n: 2 });
    assert.equal(answer.choices.length, 2);
    assert.equal(answer.usage.total_tokens, 20);
  },
  async "chat, streamed"() {
    const stream = client.chat.completions.stream({ model, messages, stream_options: { include_usage: true } });
    let text = "";
    stream.on("content", (piece) => (text += piece));
    const final = await stream.finalChatCompletion();
    assert.equal(final.choices[0].message.content, text);
    assert.equal(final.usage.completion_tokens, 8);
  },
  async tools() {
    let seen;
    const run = client.chat.completions.runTools({
      model,
      messages,
      tools: [
        {
          type: "function",
          function: { name: "weather", parameters, parse: JSON.parse, function: (given) => ((seen = given), "rain") },
        },
      ],
    });
    assert.ok(await run.finalContent());
    assert.deepEqual(seen, { city: "answer" });
  },
  async "completions and embeddings"() {
    assert.ok((await client.completions.create({ model, prompt: "once" })).choices[0].text);
    const made = await client.embeddings.create({ model: "vectors", input: ["a", "b"] });
    assert.equal(made.data[0].embedding.length, 8);
  },
  async models() {
    const names = [];
    for await (const found of client.models.list()) names.push(found.id);
    assert.ok(names.includes("auto"));
  },
  async responses() {
    const first = await client.responses.create({ model, input: "hello" });
    assert.ok(first.output_text);
    const second = await client.responses.create({ model, input: "go on", previous_response_id: first.id });
    assert.equal((await client.responses.retrieve(second.id)).previous_response_id, first.id);
    await client.responses.delete(first.id);
    await assert.rejects(client.responses.retrieve(first.id), OpenAI.NotFoundError);
  },
  async "responses, streamed"() {
    const stream = client.responses.stream({
      model,
      input: "hello",
      tools: [{ type: "function", name: "weather", parameters, strict: true }],
      tool_choice: "required",
    });
    const kinds = [];
    for await (const event of stream) kinds.push(event.type);
    assert.equal(kinds[0], "response.created");
    assert.equal(kinds.at(-1), "response.completed");
    const final = await stream.finalResponse();
    assert.deepEqual(JSON.parse(final.output[0].arguments), { city: "answer" });
  },
  async files() {
    const file = await client.files.create({
      file: new File([JSON.stringify({ custom_id: "a" })], "in.jsonl"),
      purpose: "batch",
    });
    assert.equal((await client.files.retrieve(file.id)).filename, "in.jsonl");
    assert.ok((await client.files.delete(file.id)).deleted);
  },
  async errors() {
    await assert.rejects(client.withOptions({ apiKey: "sk-wrong" }).models.list(), OpenAI.AuthenticationError);
    await assert.rejects(client.chat.completions.create({ model: "nope", messages }), OpenAI.NotFoundError);
    await assert.rejects(
      client.chat.completions.create({ model, messages, store: true }),
      (error) => error instanceof OpenAI.BadRequestError && error.code === "unsupported_parameter",
    );
  },
};

for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
  } catch (error) {
    console.log(`${name}: ${error.stack}`);
    process.exit(1);
  }
}
console.log(`${Object.keys(checks).length} passed`);
