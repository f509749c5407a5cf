import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { transaction } from './database.js';

// urlPatience is how long a buyer is kept waiting for the address of Polar's page, in milliseconds. It takes a fraction of
// a second, but Polar may be slow.
export const urlPatience = 10_000;

// accessPatience is how long after a payment access may take to arrive before something is wrong.
const accessPatience = '5 minutes';

// placeOrder returns the id of the buyer's order of the product. A buyer who has an order that can still be paid gets that one.
async function placeOrder(tx, product, buyer) {
  // What can no longer be paid makes room, and so does what was refunded, or, for who is signed in, was paid a while ago:
  // with access nobody comes here, so a subscription has run out. A visitor's purchase waits for the sign-up.
  await tx.query(
    `update orders o set closed_at = now()
       from polar.checkout_request r
      where r.id = o.request_id and o.user_id = $1 and o.product_id = $2 and o.closed_at is null
        and (r.state in ('failed', 'expired')
             or r.state = 'open' and r.expires_at <= now()
             or r.state = 'succeeded' and $3 and r.updated_at < now() - $4::interval
             or exists (select from polar."order" p where p.checkout_id = r.checkout_id and p.status = 'refunded'))`,
    [buyer.id, product, buyer.email !== '', accessPatience]);
  // The update that changes nothing waits for whoever presses the button at the same moment, and gives their order.
  const { rows: [order] } = await tx.query(
    `insert into orders (id, user_id, product_id) values ($1, $2, $3)
     on conflict (user_id, product_id) where closed_at is null do update set closed_at = null
     returning id`,
    [randomUUID(), buyer.id, product]);
  return order.id;
}

// checkoutOf is Polar's own checkout-create document, which is the same in SQL and by HTTP. The buyer's address is left to
// Polar's page: here nobody has verified it, and receipts go there.
const checkoutOf = (config, buyer, order) => ({
  products: [config.product],
  external_customer_id: buyer.id,
  success_url: new URL(`/orders/${order}`, config.base).href,
  return_url: new URL('/', config.base).href,
});

const setRequest = (db, order, request) => db.query('update orders set request_id = $2 where id = $1', [order, request]);

// buyBySQL writes the order and asks for its checkout in one transaction, so neither is ever there without the other. It
// returns the order's id, and where to pay, or null where nobody can (yet).
export async function buyBySQL(config, pool, buyer) {
  const { order, request } = await transaction(pool, async (tx) => {
    const order = await placeOrder(tx, config.product, buyer);
    const { rows: [created] } = await tx.query('select polar.create_checkout($1, $2) as id',
      [JSON.stringify(checkoutOf(config, buyer, order)), order]);
    await setRequest(tx, order, created.id);
    return { order, request: created.id };
  });
  return { order, url: await awaitURL(pool, request) };
}

// awaitURL looks until a worker has created the session at Polar. Call it after the commit.
async function awaitURL(pool, request) {
  const deadline = Date.now() + urlPatience;
  for (let wait = 25; ; wait = Math.min(2 * wait, 500)) {
    const { rows: [row] } = await pool.query('select state, url, error from polar.checkout_request where id = $1', [request]);
    if (row.state !== 'queued' && row.state !== 'creating') return addressOf(request, row);
    if (Date.now() + wait > deadline) return null;
    await pause(wait);
  }
}

// addressOf is where to pay, in any state that a request can be in.
function addressOf(request, { state, url, error }) {
  if (state === 'open' || state === 'confirmed') return url;
  console.error(`no address to pay at: checkout request ${request}: ${state}`, error ?? '');
  return null;
}

// buyByHTTP does the same through the worker's HTTP door. That is no part of any transaction here: the order is committed
// first, and a crash before the answer leaves it without a request. Nothing is lost by that, for the order's id is the
// Idempotency-Key: the next press of the button finds the order and asks again, for the same checkout.
export async function buyByHTTP(config, pool, buyer) {
  const order = await transaction(pool, (tx) => placeOrder(tx, config.product, buyer));
  const answer = await fetch(new URL(`/v1/checkout-requests?wait=${urlPatience / 1000}s`, config.truenorthURL), {
    method: 'POST',
    headers: {
      authorization: `Bearer ${config.truenorthKey}`,
      'content-type': 'application/json',
      'idempotency-key': order,
    },
    body: JSON.stringify(checkoutOf(config, buyer, order)),
    signal: AbortSignal.timeout(urlPatience + 5_000),
  });
  const request = await answer.json(); // where it is a problem, detail says what to do
  if (!answer.ok) throw new Error(`asking truenorth for a checkout: ${answer.status} ${request.detail ?? request.title}`);
  await setRequest(pool, order, request.id);
  return { order, url: addressOf(request.id, request) };
}

// readOrder is what the tables say of an order of the buyer's; undefined where it is not there or somebody else's.
export async function readOrder(pool, buyer, id) {
  const { rows: [order] } = await pool.query(
    `select o.id, r.state,
            case when r.state = 'open' and r.expires_at > now() then r.url end as url,
            r.updated_at > now() - $3::interval as "isRecent",
            exists (select from polar."order" p where p.checkout_id = r.checkout_id and p.status = 'refunded') as "isRefunded",
            exists (select from polar.user_access a
                     where a.local_user_id = o.user_id and a.product_id = o.product_id and a.kind <> 'benefit') as "hasAccess"
       from orders o join polar.checkout_request r on r.id = o.request_id
      where o.id = $1 and o.user_id = $2`,
    [id, buyer.id, accessPatience]);
  return order;
}

// hasPaid tells whether a visitor has bought what only a sign-up will make theirs.
export async function hasPaid(pool, visitor) {
  const { rowCount } = await pool.query(
    `select from orders o join polar.checkout_request r on r.id = o.request_id
      where o.user_id = $1 and r.state in ('confirmed', 'succeeded') limit 1`,
    [visitor.id]);
  return rowCount > 0;
}

// readAccess is the only place that decides who may see what is sold. Nothing is stored of it: a payment, a refund, a seat,
// an end are in polar.user_access when they are, and every row of that is a yes. It returns why, or undefined for a no.
export async function readAccess(pool, product, user) {
  const { rows: [access] } = await pool.query(
    `select reason, until from polar.user_access
      where local_user_id = $1 and product_id = $2 and kind <> 'benefit'
      order by until desc nulls first limit 1`,
    [user.id, product]);
  return access;
}

// readOffer reads name and price from the mirror, so that the page says what Polar will charge. Undefined where truenorth has
// not heard of the product, or it is not for sale any more. amount is null where the price is made at the checkout.
export async function readOffer(pool, product) {
  const { rows: [offer] } = await pool.query(
    `select p.name, coalesce(p.description, '') as description, p.recurring_interval as interval,
            (f.price ->> 'price_amount')::float8 as amount, f.price ->> 'price_currency' as currency
       from polar.product p
       left join lateral (
            select price from jsonb_array_elements(p.doc -> 'prices') price
             where price ->> 'amount_type' = 'fixed' and not (price ->> 'is_archived')::boolean limit 1) f on true
      where p.id = $1 and p.deleted_at is null and p.is_archived is not true`,
    [product]);
  return offer;
}
