// Makes the calls of autumn-js that a test asks for: a JSON line in, a JSON line out.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { Autumn } = createRequire(`${process.argv[2]}/`)("autumn-js");

// The library prints what went wrong; standard output is for the answers.
console.log = console.error = () => {};

for await (const line of createInterface({ input: process.stdin })) {
  const { call, arguments: given, options, more } = JSON.parse(line);
  const path = call.split(".");
  const method = path.pop();
  let answer;
  try {
    const target = path.reduce((object, name) => object[name], new Autumn(options));
    answer = { result: (await target[method](given ?? undefined, more)) ?? null };
  } catch (error) {
    answer = { error: { name: error.constructor.name, status: error.statusCode, body: error.body } };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
