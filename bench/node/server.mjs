// The system that this package is modelled on: a Hono middleware that charges through autumn-js before the handler runs.
import { serve } from "@hono/node-server";
import { Autumn } from "autumn-js";
import { Hono } from "hono";

const [port, serverURL] = process.argv.slice(2);
const autumn = new Autumn({ secretKey: "am_sk_test_benchmark", serverURL });
const prices = { "gpt-4o": 5 };

const app = new Hono();

app.use("/ai/*", async (c, next) => {
  const customerId = c.req.header("x-customer");
  const price = prices[(await c.req.json()).model];
  await autumn.customers.getOrCreate({ customerId });
  const check = await autumn.check({ customerId, featureId: "ai_usage", requiredBalance: price, sendEvent: true });
  if (!check.allowed) return c.json({ detail: "insufficient credits" }, 402);
  await next();
  if (c.res.status >= 400) await autumn.track({ customerId, featureId: "ai_usage", value: -price });
});

app.post("/ai/chat", async (c) => c.json({ answer: (await c.req.json()).prompt }));

serve({ fetch: app.fetch, port: Number(port), hostname: "127.0.0.1" });
