import { readFile } from 'node:fs/promises';
import * as accounts from './accounts.js';
import * as orders from './orders.js';
import * as pages from './pages.js';

// shopListener answers the requests of an http.Server.
export async function shopListener(config, pool) {
  const isSecure = config.base.protocol === 'https:';
  // By the prefix browsers refuse a cookie that another host, or an unencrypted page, tries to plant.
  const cookieName = isSecure ? '__Host-shop' : 'shop';
  const headers = guardHeaders(isSecure);
  const assets = {
    '/static/shop.css': { type: 'text/css; charset=utf-8', body: await readAsset('shop.css') },
    '/static/icon.svg': { type: 'image/svg+xml', body: await readAsset('icon.svg') },
  };

  // Each handler gets { request, who, form, token } and returns { status, page }, { to }, and { setToken } where the browser
  // is to carry another token.
  const routes = {
    'GET /': showOffer, 'POST /buy': buy, 'GET /members': showMembers,
    'GET /sign-up': showSignUp, 'POST /sign-up': doSignUp,
    'GET /sign-in': showSignIn, 'POST /sign-in': doSignIn, 'POST /sign-out': doSignOut,
  };

  return async function listen(request, response) {
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    const path = request.url.split('?', 1)[0];
    const method = request.method === 'HEAD' ? 'GET' : request.method;
    if (method === 'GET' && Object.hasOwn(assets, path)) {
      response.setHeader('content-type', assets[path].type);
      response.end(assets[path].body);
      return;
    }
    response.setHeader('cache-control', 'no-store'); // pages say who is signed in
    let who = null;
    try {
      if (method === 'POST' && !isSameOrigin(request)) {
        send(response, 403, pages.messagePage(null, 'Not from here', 'This form was sent by a page of another site, and changes nothing.'));
        return;
      }
      let token = readToken(request);
      who = token && await accounts.identify(pool, token);
      if (!who) { // nobody yet, or somebody whose token is used up
        token = accounts.newToken();
        who = accounts.newVisitor(token);
        setToken(response, token);
      }
      const order = method === 'GET' && /^\/orders\/([^/]+)$/.exec(path);
      const key = `${method} ${path}`;
      const handle = order ? showOrder : Object.hasOwn(routes, key) ? routes[key] : showNothing;
      const form = method === 'POST' ? await readForm(request) : null;
      const answer = await handle({ who, token, form, id: order?.[1] });
      if (answer.setToken) setToken(response, answer.setToken);
      if (answer.to) response.writeHead(303, { location: answer.to }).end();
      else send(response, answer.status ?? 200, answer.page);
    } catch (error) {
      if (error instanceof TooLarge) {
        response.setHeader('connection', 'close');
        send(response, 413, pages.messagePage(who, 'Too much', 'That form is too large.'));
        return;
      }
      // What went wrong is for the log; browsers hear only that it did.
      console.error(`${method} ${path} failed:`, error);
      if (response.headersSent) response.destroy();
      else send(response, 500, pages.messagePage(who, 'Something went wrong', 'It is our fault, and we have been told. Please try again in a moment.'));
    }
  };

  function setToken(response, token) {
    // SameSite=Strict would not be sent by who comes back from Polar's page.
    response.setHeader('set-cookie', `${cookieName}=${token.toString('base64url')}; Path=/; Max-Age=${accounts.sessionDays * 86400}; HttpOnly; SameSite=Lax${isSecure ? '; Secure' : ''}`);
  }

  function readToken(request) {
    for (const pair of (request.headers.cookie ?? '').split(';')) {
      const [name, value] = pair.trim().split('=', 2);
      if (name !== cookieName || value === undefined) continue;
      const token = Buffer.from(value, 'base64url');
      if (token.length === 32) return token;
    }
    return null;
  }

  // isSameOrigin refuses forms that a page of another site sends. Browsers say where a form is from, so forms need no token.
  function isSameOrigin(request) {
    const site = request.headers['sec-fetch-site'];
    if (site !== undefined) return site === 'same-origin' || site === 'none';
    const { origin } = request.headers;
    return origin === undefined || origin === config.base.origin; // without both it is no browser of these days
  }

  async function showOffer({ who }) {
    const offer = await orders.readOffer(pool, config.product);
    if (!offer) return { status: 503, page: pages.messagePage(who, 'Nothing is on sale', 'Please come back in a moment.', 5) };
    return { page: pages.offerPage(who, offer, await orders.readAccess(pool, config.product, who)) };
  }

  // buy leads to Polar's page. Whoever presses twice, or again because the first answer got lost, is led to the same checkout.
  async function buy({ who }) {
    if (await orders.readAccess(pool, config.product, who)) return { to: '/members' };
    // Either way does for everybody. Both are here to be seen: take the one that suits.
    const { order, url } = await (who.email ? orders.buyBySQL : orders.buyByHTTP)(config, pool, who);
    return { to: url ?? `/orders/${order}` };
  }

  // showOrder is where Polar's page leads back to. That somebody comes here proves nothing, whatever the address says: what
  // is shown is what the tables say, and only to whose order it is.
  async function showOrder({ who, id }) {
    const isID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id);
    const order = isID && await orders.readOrder(pool, who, id);
    return order ? { page: pages.orderPage(who, order) } : showNothing({ who });
  }

  function showNothing({ who }) {
    return { status: 404, page: pages.messagePage(who, 'Nothing is here', 'If you look for an order of yours, open it in the browser you ordered with, or sign in.') };
  }

  async function showMembers({ who }) {
    if (!who.email) return { to: '/sign-in' };
    const access = await orders.readAccess(pool, config.product, who);
    return access ? { page: pages.membersPage(who, access) } : { status: 403, page: pages.refusedPage(who) };
  }

  function showSignUp({ who }) {
    return who.email ? { to: '/' } : { page: pages.signUpPage(who) };
  }

  async function doSignUp({ who, form }) {
    if (who.email) return { to: '/' };
    const email = (form.get('email') ?? '').trim();
    const password = form.get('password') ?? '';
    const again = (complaint) => ({ status: 422, page: pages.signUpPage(who, email, complaint) });
    if (!/^[^\s@<>"(),:;]+@[^\s@<>"(),:;]+$/.test(email) || email.length > 254) return again('This is no e-mail address.');
    const length = [...password].length;
    if (length < 10 || length > 200) return again('A password has 10 to 200 characters.');
    const setToken = accounts.newToken(); // a new one, so that nobody who knew the old is signed in with it
    if (!await accounts.signUp(pool, who, email, password, setToken)) {
      return again('There is an account with this e-mail address. Sign in instead.');
    }
    return { setToken, to: await welcomeTo(who) };
  }

  // welcomeTo is where who has just signed in goes: to what they have, or to what they may buy.
  async function welcomeTo(who) {
    return await orders.readAccess(pool, config.product, who) ? '/members' : '/';
  }

  function showSignIn({ who }) {
    return who.email ? { to: '/' } : { page: pages.signInPage(who) };
  }

  async function doSignIn({ who, form }) {
    if (who.email) return { to: '/' };
    const email = (form.get('email') ?? '').trim();
    const again = (complaint) => ({ status: 422, page: pages.signInPage(who, email, complaint) });
    // With the visitor's token goes the visitor's id, and with that what was bought under it.
    if (await orders.hasPaid(pool, who)) {
      return again('You bought something in this browser without an account. Create one to use it; or write to us, and it goes to the account you have.');
    }
    const setToken = accounts.newToken();
    const user = await accounts.signIn(pool, email, form.get('password') ?? '', setToken);
    if (!user) return again('The e-mail address or the password is wrong.');
    return { setToken, to: await welcomeTo(user) };
  }

  async function doSignOut({ token }) {
    await accounts.signOut(pool, token);
    return { setToken: accounts.newToken(), to: '/' };
  }
}

const readAsset = (name) => readFile(new URL(`static/${name}`, import.meta.url));

function guardHeaders(isSecure) {
  // The button leads on to Polar's page, and browsers ask the policy about that redirect too. http: is for the fake Polar.
  const forms = isSecure ? "'self' https:" : "'self' https: http:";
  return {
    'content-security-policy': `default-src 'none'; style-src 'self'; img-src 'self'; form-action ${forms}; base-uri 'none'; frame-ancestors 'none'`,
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'same-origin',
    ...(isSecure && { 'strict-transport-security': 'max-age=31536000' }),
  };
}

function send(response, status, page) {
  response.writeHead(status, { 'content-type': 'text/html; charset=utf-8' }).end(page.toString());
}

class TooLarge extends Error {}

async function readForm(request) {
  const longest = 16 * 1024;
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > longest) throw new TooLarge();
    chunks.push(chunk);
  }
  return new URLSearchParams(Buffer.concat(chunks).toString('utf8'));
}
