// Runs Polar's official client against the fake Polar at FAKE_URL, and has it verify webhooks that the fake sent.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { createPolar, errors, webhooks } from "@polar-sh/sdk/2026-10";

const fakeURL = process.env.FAKE_URL;
assert.ok(fakeURL, "set FAKE_URL to the base of a fake Polar, http://127.0.0.1:8082");

const polar = createPolar({ accessToken: "polar_oat_check", baseUrl: fakeURL });
const legacySecret = "polar_whs_ovyN6cPrTv56AApvzCaJno08SSmGJmgbWilb33N2JuK";
const eventTypes = [
  "checkout.created", "checkout.updated", "customer.created", "customer.updated", "customer.state_changed",
  "order.created", "order.paid", "subscription.active", "benefit_grant.created", "member.created",
];

// receive starts an endpoint. Its deliveries are kept with their header and raw body.
async function receive() {
  const deliveries = [];
  const server = createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    deliveries.push({ header: request.headers, body: Buffer.concat(parts) });
    response.writeHead(202).end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { deliveries, server, url: `http://127.0.0.1:${server.address().port}/` };
}

// control calls what the fake has beside Polar's API.
async function control(path, body) {
  const response = await fetch(`${fakeURL}/_fake/${path}`, {
    method: body === undefined ? "GET" : "POST",
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  assert.ok(response.ok, `${path} answered ${response.status}`);
  return response.json();
}

async function idle() {
  const deadline = Date.now() + 20_000;
  while ((await control("state")).pending > 0) {
    assert.ok(Date.now() < deadline, "the fake still has deliveries under way after 20 s");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

let standard;
let legacy;
before(async () => {
  standard = await receive();
  legacy = await receive();
});
after(() => {
  standard.server.close();
  legacy.server.close();
});

test("products are listed and read", async () => {
  const { items, pagination } = await polar.products.list({ is_archived: false, limit: 2, sorting: ["created_at"] });
  assert.equal(items.length, 2);
  assert.ok(pagination.max_page > 1);
  const product = await polar.products.get(items[0].id);
  assert.deepEqual(product, items[0]);
});

test("customers are created, found, updated and deleted", async () => {
  const created = await polar.customers.create({ type: "individual", email: "sdk@example.com", external_id: "sdk_1" });
  assert.equal(created.external_id, "sdk_1");
  assert.equal((await polar.customers.getExternal("sdk_1")).id, created.id);
  assert.equal((await polar.customers.list({ email: "SDK@example.com" })).items[0].id, created.id);
  const updated = await polar.customers.update(created.id, { name: "Ada", metadata: { plan: "a" } });
  assert.equal(updated.name, "Ada");
  assert.equal((await polar.customers.list({ metadata: { plan: "a" } })).items.length, 1);
  assert.deepEqual((await polar.customers.getStateExternal("sdk_1")).active_subscriptions, []);
  await assert.rejects(polar.customers.update(created.id, { external_id: "sdk_2" }), errors.HTTPValidationError);
  await polar.customers.delete(created.id);
  await assert.rejects(polar.customers.get(created.id), errors.ResourceNotFound);
});

test("a checkout is created, read, listed, paid, and told of in webhooks that verify both ways", async () => {
  const endpoint = await polar.webhooks.createWebhookEndpoint({ url: standard.url, format: "raw", events: eventTypes });
  assert.equal(endpoint.uses_standard_webhook_signature, true);
  const chosen = await polar.webhooks.createWebhookEndpoint({
    url: legacy.url, format: "raw", events: eventTypes, secret: legacySecret,
  });
  assert.equal(chosen.uses_standard_webhook_signature, false);

  const product = (await polar.products.list({ is_recurring: true, query: "Explorer", sorting: ["created_at"] })).items[0];
  const created = await polar.checkouts.create({
    products: [product.id], external_customer_id: "sdk_buyer", metadata: { request: "r1" },
  });
  assert.equal(created.status, "open");
  assert.deepEqual(await polar.checkouts.get(created.id), created);
  const open = await polar.checkouts.list({ status: ["open"], sorting: ["-created_at"], limit: 100 });
  assert.ok(open.items.some((checkout) => checkout.id === created.id));
  const renamed = await polar.checkouts.update(created.id, { customer_name: "Bea" });
  assert.equal(renamed.customer_name, "Bea");
  await assert.rejects(polar.checkouts.create({ products: [] }), errors.HTTPValidationError);

  await control(`checkouts/${created.id}/pay`, { email: "buyer@example.com" });
  await idle();
  assert.equal((await polar.checkouts.get(created.id)).status, "succeeded");
  assert.equal((await polar.orders.list({ checkout_id: created.id })).items.length, 1);

  for (const [receiver, secret, other] of [
    [standard, endpoint.secret, legacySecret], [legacy, legacySecret, endpoint.secret],
  ]) {
    const types = new Set();
    for (const { header, body } of receiver.deliveries) {
      const event = await webhooks.validateEvent(body, header, secret);
      types.add(event.type);
      await assert.rejects(webhooks.validateEvent(body, header, other), webhooks.PolarWebhookVerificationError);
    }
    assert.deepEqual([...types].sort(), [...eventTypes].sort());
  }

  const deliveries = await polar.webhooks.listWebhookDeliveries({ endpoint_id: endpoint.id, succeeded: true, limit: 100 });
  assert.equal(deliveries.items.length, standard.deliveries.length);
  await polar.webhooks.redeliverWebhookEvent(deliveries.items[0].webhook_event.id);
  await idle();
  const again = standard.deliveries.at(-1);
  assert.equal(again.header["webhook-id"], deliveries.items[0].webhook_event.id);
  await webhooks.validateEvent(again.body, again.header, endpoint.secret);

  await polar.webhooks.updateWebhookEndpoint(endpoint.id, { enabled: false });
  await polar.webhooks.deleteWebhookEndpoint(endpoint.id);
  await polar.webhooks.deleteWebhookEndpoint(chosen.id);
});

test("the catalogue changes", async () => {
  const benefit = await polar.benefits.create({ type: "custom", description: "A perk", properties: { note: "hello" } });
  const created = await polar.products.create({
    name: "SDK atlas", recurring_interval: "month", prices: [{ amount_type: "fixed", price_amount: 0 }],
  });
  const product = await polar.products.updateBenefits(created.id, { benefits: [benefit.id] });
  assert.equal(product.benefits[0].id, benefit.id);
  assert.equal((await polar.products.update(product.id, { name: "SDK map" })).name, "SDK map");
  const discount = await polar.discounts.create({ type: "percentage", name: "SDK", duration: "once", basis_points: 500 });
  assert.equal((await polar.discounts.update(discount.id, { name: "SDK 5" })).name, "SDK 5");
  await polar.discounts.delete(discount.id);
  await assert.rejects(polar.discounts.get(discount.id), errors.ResourceNotFound);
  await polar.benefits.delete(benefit.id);
  assert.deepEqual((await polar.products.get(product.id)).benefits, []);
});

test("a subscription with seats, its members and its refund", async () => {
  const team = await polar.customers.create({ type: "team", name: "Crew", email: "crew@example.com", external_id: "sdk_team" });
  const seats = (await polar.products.list({ query: "Expedition team" })).items[0];
  const checkout = await polar.checkouts.create({ products: [seats.id], customer_id: team.id, seats: 2 });
  await control(`checkouts/${checkout.id}/pay`, {});
  const [subscription] = (await polar.subscriptions.list({ customer_id: team.id, sorting: ["started_at"] })).items;
  assert.equal(subscription.seats, 2);
  const seat = await polar.customerSeats.assignSeat({
    subscription_id: subscription.id, email: "one@example.com", external_member_id: "sdk_m1",
  });
  await control(`customer-seats/${seat.id}/claim`, {});
  const list = await polar.customerSeats.listSeats({ subscription_id: subscription.id });
  assert.equal(list.available_seats, 1);
  assert.equal(list.seats[0].member.external_id, "sdk_m1");
  assert.equal((await polar.benefitGrants.list({ customer_id: team.id })).items[0].member_id, seat.member_id);
  assert.equal((await polar.customerSeats.revokeSeat(seat.id)).status, "revoked");

  await control(`subscriptions/${subscription.id}/cycle`, {});
  const canceled = await polar.subscriptions.update(subscription.id, { cancel_at_period_end: true });
  assert.equal(canceled.cancel_at_period_end, true);
  const [order] = (await polar.orders.list({ subscription_id: subscription.id, sorting: ["-created_at"] })).items;
  assert.equal(order.billing_reason, "subscription_cycle");
  const refund = await polar.refunds.create({ order_id: order.id, reason: "customer_request", amount: 100 });
  assert.equal(refund.status, "succeeded");
  assert.equal((await polar.orders.get(order.id)).status, "partially_refunded");
  assert.equal((await polar.subscriptions.revoke(subscription.id)).status, "canceled");
  let orders = 0;
  for await (const one of polar.orders.iterList({ customer_id: team.id, limit: 1 })) orders += one.id ? 1 : 0;
  assert.equal(orders, 2);
  await idle();
});

test("a wrong token and a missing session are told apart", async () => {
  await assert.rejects(polar.checkouts.get("3fa85f64-5717-4562-b3fc-2c963f66afa6"), errors.ResourceNotFound);
  const stranger = createPolar({ accessToken: "", baseUrl: fakeURL });
  await assert.rejects(stranger.checkouts.list(), (error) => error.statusCode === 401);
});
