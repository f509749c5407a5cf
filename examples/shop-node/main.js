// A small web shop that sells one product through Polar and truenorth. The README beside it says how to run it, and
// what to look at.
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import pg from 'pg';
import { removeOldSessions } from './accounts.js';
import { transaction } from './database.js';
import { urlPatience } from './orders.js';
import { shopListener } from './shop.js';

const config = readConfig(process.env);
const pool = new pg.Pool({ connectionString: config.databaseURL });
pool.on('error', (error) => console.error('a resting connection was lost:', error.message)); // the next query dials anew

const schema = await readFile(new URL('schema.sql', import.meta.url), 'utf8');
await transaction(pool, async (tx) => {
  // "if not exists" alone is no match for two shops that start at the same moment.
  await tx.query("select pg_advisory_xact_lock(hashtext('shop schema'))");
  await tx.query(schema);
});

// The time-outs are for sending a request; the wait for a checkout's URL comes after it.
const server = createServer({ headersTimeout: 5_000, requestTimeout: 10_000, keepAliveTimeout: 60_000 }, await shopListener(config, pool));
const { hostname, port } = new URL(`http://${config.addr}`);
server.listen(Number(port || 80), hostname, () => console.error(`the shop is open: ${config.base.origin}`));

// What goes on beside the pages stands here. Who has to do something once when access begins, such as to send a mail,
// adds one more loop: pages only ever ask polar.user_access what is true now, and never hear of a beginning.
const cleaning = setInterval(() => removeOldSessions(pool), 60 * 60 * 1000);
await removeOldSessions(pool);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, stop);

// stop finishes the requests in flight.
function stop() {
  clearInterval(cleaning);
  server.close(() => pool.end());
  server.closeIdleConnections();
  setTimeout(() => server.closeAllConnections(), urlPatience + 1000).unref();
}

function readConfig(env) {
  const addr = env.SHOP_ADDR || '127.0.0.1:3001';
  const wanted = {
    databaseURL: env.DATABASE_URL,
    product: env.PRODUCT_ID,
    truenorthURL: env.TRUENORTH_URL,
    truenorthKey: env.TRUENORTH_KEY,
  };
  const hints = {
    databaseURL: 'DATABASE_URL: the Postgres of the shop and of truenorth',
    product: 'PRODUCT_ID: the id of a product at Polar',
    truenorthURL: "TRUENORTH_URL: where truenorth's worker serves /v1, such as http://127.0.0.1:8081",
    truenorthKey: 'TRUENORTH_KEY: a key for it, made by truenorth keys create shop',
  };
  const missing = Object.keys(wanted).filter((name) => !wanted[name]).map((name) => `\n  ${hints[name]}`);
  if (missing.length > 0) {
    console.error(`the shop needs these environment variables:${missing.join('')}`);
    process.exit(1);
  }
  return { ...wanted, addr, base: new URL(env.SHOP_URL || `http://${addr}`) };
}
