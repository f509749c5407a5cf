import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hashPassword, isPassword } from './accounts.js';
import { html, money } from './pages.js';

test('what a page is given is text, and what html made is markup', () => {
  const name = '<script>alert("1")</script>\' &';
  assert.equal(`${html`<p title="${name}">${html`<b>${name}</b>`}${false}${undefined}${null}${0}</p>`}`,
    '<p title="&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39; &amp;"><b>&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39; &amp;</b>0</p>');
});

test('an amount is shown in the units of its currency', () => {
  assert.equal(money(4900, 'usd'), '49.00 USD');
  assert.equal(money(500, 'jpy'), '500 JPY');
});

test('a password opens its own hash alone', async () => {
  const hashed = await hashPassword('trust the needle');
  assert.notEqual(hashed, await hashPassword('trust the needle'), 'two hashes have one salt');
  assert.ok(await isPassword(hashed, 'trust the needle'));
  assert.ok(!await isPassword(hashed, 'trust the needles'));
});

test('a hash is what every PBKDF2 makes, so that both shops understand it', async () => {
  // RFC 7914, section 11: PBKDF2-HMAC-SHA-256 of "Password" and "NaCl", with 80000 rounds; the first half of its key.
  const key = Buffer.from('4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56', 'hex').toString('base64');
  assert.ok(await isPassword(`pbkdf2-sha256$80000$TmFDbA$${key}`, 'Password'));
  assert.ok(!await isPassword(`pbkdf2-sha256$80001$TmFDbA$${key}`, 'Password'));
});

test('what is no hash opens nothing', async () => {
  for (const hashed of ['', 'pbkdf2-sha256$600000$$', 'plain$1$$', 'password']) {
    assert.ok(!await isPassword(hashed, ''), hashed);
  }
});
