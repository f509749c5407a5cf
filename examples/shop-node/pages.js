// html makes a page of a template, in which every value is escaped unless it was made by html itself.
export function html(parts, ...values) {
  return new Markup(parts.reduce((page, part, i) => page + rendered(values[i - 1]) + part));
}

class Markup {
  constructor(text) { this.text = text; }

  toString() { return this.text; }
}

const entities = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

function rendered(value) {
  if (value instanceof Markup) return value.text;
  if (value === undefined || value === null || value === false) return '';
  return String(value).replace(/[&<>"']/g, (c) => entities[c]);
}

// layout is a whole page. refresh is after how many seconds it looks again.
function layout(who, title, body, refresh) {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
${refresh && html`<meta http-equiv="refresh" content="${refresh}">`}
<title>${title} · Meridian</title>
<link rel="icon" href="/static/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/static/shop.css">
</head>
<body>
<header>
<a class="brand" href="/"><img src="/static/icon.svg" alt="" width="28" height="28">Meridian</a>
<nav>
${who?.email
    ? html`<a href="/members">Members</a>
<form method="post" action="/sign-out"><button class="plain" id="sign-out" title="${who.email}">Sign out</button></form>`
    : html`<a href="/sign-in">Sign in</a>
<a href="/sign-up">Create account</a>`}
</nav>
</header>
<main>
${body}
</main>
<footer>Payments by Polar, kept in step by truenorth.</footer>
</body>
</html>
`;
}

export function offerPage(who, offer, access) {
  return layout(who, offer.name, html`<article class="offer">
<p class="kicker">From the chart room</p>
<h1>${offer.name}</h1>
<p class="lead">${offer.description}</p>
${offer.amount !== null && html`<p class="price" id="price">${money(offer.amount, offer.currency)}${offer.interval && html` <small>a ${offer.interval}</small>`}</p>`}
${access
    ? html`<p class="good" id="owned">You have it.</p>
<a class="button" href="/members">Open it</a>`
    : html`<form method="post" action="/buy"><button id="buy">Buy</button></form>
${who.email
      ? html`<p class="hint">For ${who.email}.</p>`
      : html`<p class="hint">Have an account? <a href="/sign-in">Sign in</a> first. New here? Buy now, and create one afterwards.</p>`}`}
</article>`);
}

export function orderPage(who, order) {
  return layout(who, 'Your order', html`<article>${orderBody(who, order)}</article>`, mayChange(who, order) && 2);
}

// mayChange tells whether it is worth looking again in a moment.
function mayChange(who, order) {
  if (order.hasAccess || order.isRefunded || order.state === 'failed' || order.state === 'expired') return false;
  if (order.state === 'succeeded' && !who.email) return false; // it waits for the sign-up
  return order.isRecent;
}

function orderBody(who, order) {
  if (order.hasAccess) {
    return html`<h1 class="good" id="paid">Thank you, it is yours</h1>
<p>Your purchase is complete.</p>
<a class="button" href="/members">Open it</a>`;
  }
  if (order.isRefunded) {
    return html`<h1 id="refunded">This order was refunded</h1>
<a class="button" href="/">Back to the shop</a>`;
  }
  if (order.state === 'succeeded' && !who.email) {
    return html`<h1 class="good" id="paid-as-visitor">Thank you, it is paid</h1>
<p>One step is left: create an account in this browser, and it is yours at once.</p>
<a class="button" href="/sign-up">Create account</a>`;
  }
  if (order.state === 'succeeded' && order.isRecent) {
    return html`<h1 id="opening">Thank you, it is paid</h1>
<p role="status">The door is being opened for you …</p>`;
  }
  if (order.state === 'succeeded') {
    return html`<h1 id="no-access">This purchase gives no access</h1>
<p>It has ended, or is looked at by one of us. Write to us if you wonder why.</p>
<a class="button" href="/">Back to the shop</a>`;
  }
  if (order.state === 'confirmed') {
    return html`<h1 id="processing">Your payment is under way</h1>
<p role="status">Waiting for your bank's word …</p>`;
  }
  if (order.url) {
    return html`<h1 id="unpaid">Not paid yet</h1>
<p role="status">We have heard of no payment so far. If you have just paid, word is on its way; if not, go on where you left.</p>
<a class="button" href="${order.url}">Go on to pay</a>`;
  }
  if (order.state === 'queued' || order.state === 'creating') {
    return html`<h1 id="preparing">Your checkout is being prepared</h1>
<p role="status">This page looks again by itself …</p>`;
  }
  return html`<h1 id="ended">This checkout has ended</h1>
<p>It was not paid, and no longer can be.</p>
<form method="post" action="/buy"><button id="buy">Try again</button></form>`;
}

export function membersPage(who, access) {
  return layout(who, 'Members', html`<article>
<p class="kicker">Members</p>
<h1 id="members">Welcome aboard</h1>
<p>Only those who have bought it see this page.</p>
<p class="hint">Why you do: ${access.reason}${access.until && html`, until ${day(access.until)}`}.</p>
<blockquote>Trust the needle, but know how far it lies from true north.</blockquote>
</article>`);
}

export function refusedPage(who) {
  return layout(who, 'For members', html`<article>
<h1 id="refused">This page is for members</h1>
<p>You have not bought it yet, or your access has ended.</p>
<a class="button" href="/">To the shop</a>
</article>`);
}

const complaintOf = (words) => words && html`<p class="bad" id="complaint" role="alert">${words}</p>`;

export function signUpPage(who, email, complaint) {
  return layout(who, 'Create an account', html`<article class="narrow">
<h1>Create an account</h1>
${complaintOf(complaint)}
<form method="post" action="/sign-up">
<label>E-mail<input id="email" name="email" type="email" value="${email}" autocomplete="email" required maxlength="254"></label>
<label>Password<input id="password" name="password" type="password" autocomplete="new-password" required minlength="10" maxlength="200"></label>
<button id="submit">Create account</button>
</form>
<p class="hint">Have one? <a href="/sign-in">Sign in</a>.</p>
</article>`);
}

export function signInPage(who, email, complaint) {
  return layout(who, 'Sign in', html`<article class="narrow">
<h1>Sign in</h1>
${complaintOf(complaint)}
<form method="post" action="/sign-in">
<label>E-mail<input id="email" name="email" type="email" value="${email}" autocomplete="username" required maxlength="254"></label>
<label>Password<input id="password" name="password" type="password" autocomplete="current-password" required maxlength="200"></label>
<button id="submit">Sign in</button>
</form>
<p class="hint">New here? <a href="/sign-up">Create an account</a>.</p>
</article>`);
}

export function messagePage(who, title, message, refresh) {
  return layout(who, title, html`<article>
<h1>${title}</h1>
<p>${message}</p>
<a class="button" href="/">To the shop</a>
</article>`, refresh);
}

// money is an amount in a currency's smallest unit for people, as Polar's page has it: 49.00 USD.
export function money(amount, currency) {
  const digits = new Intl.NumberFormat('en', { style: 'currency', currency }).resolvedOptions().maximumFractionDigits;
  return `${(amount / 10 ** digits).toFixed(digits)} ${currency.toUpperCase()}`;
}

const day = (time) => new Intl.DateTimeFormat('en-GB', { dateStyle: 'long', timeZone: 'UTC' }).format(time);
