import { createHash, pbkdf2, randomBytes, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import { transaction } from './database.js';

// A person is whoever a request is from: { id, email }. Without an email it is a visitor, who may become a user.
//
// A browser carries a token, 256 random bits. Where they are those of a session, they stand for a user. Otherwise they are a
// visitor's, whose future user id is made of them: a visitor buys under that id before there is a user, and nothing needs
// to be stored of visitors. From the id nobody gets back to the bits.

export const sessionDays = 30;

export const newToken = () => randomBytes(32);

const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();

const visitorID = (token) => `usr_${sha256('visitor:', token).toString('hex').slice(0, 32)}`;

// identify tells who a token stands for. Null for the token of a visitor who has signed up since: it does not stand for the user.
export async function identify(db, token) {
  const visitor = { id: visitorID(token), email: '' };
  const { rows: [known] } = await db.query(
    `select u.id, u.email from sessions s join users u on u.id = s.user_id where s.token_hash = $1 and s.expires_at > now()
     union all
     select '', '' from users where id = $2`,
    [sha256(token), visitor.id]);
  if (!known) return visitor;
  return known.id === '' ? null : known;
}

export const newVisitor = (token) => ({ id: visitorID(token), email: '' });

// signUp makes a visitor a user, signed in with the token. Who has paid before has access from the commit on. It
// returns false where the address has an account.
export async function signUp(pool, visitor, email, password, token) {
  const hashed = await hashPassword(password);
  return transaction(pool, async (tx) => {
    const written = await tx.query('insert into users (id, email, password_hash) values ($1, $2, $3) on conflict do nothing',
      [visitor.id, email, hashed]);
    if (written.rowCount === 0) return false;
    await insertSession(tx, visitor.id, token);
    // A table of users that truenorth does not see would be found out by the first who pays and gets nothing.
    const { rowCount: seen } = await tx.query('select from polar.local_user where id = $1', [visitor.id]);
    if (seen === 0) {
      throw new Error('polar.local_user does not show the new user: run truenorth users map --table public.users --created-at created_at');
    }
    // Last, as the worker waits for this transaction's end with what it hears of the customer meanwhile.
    await tx.query('select polar.link_user($1)', [visitor.id]);
    return true;
  });
}

// signIn opens a session of the token's and returns the user, or null where address or password are wrong.
export async function signIn(pool, email, password, token) {
  const { rows: [user] } = await pool.query('select id, email, password_hash from users where lower(email) = lower($1)', [email]);
  // Compared also where there is no user, so that the time to the answer does not tell.
  const isRight = await isPassword(user?.password_hash ?? unusableHash, password);
  if (!user || !isRight) return null;
  await insertSession(pool, user.id, token);
  return { id: user.id, email: user.email };
}

function insertSession(db, userID, token) {
  return db.query('insert into sessions (token_hash, user_id, expires_at) values ($1, $2, now() + make_interval(days => $3))',
    [sha256(token), userID, sessionDays]);
}

// signOut ends the session of a token, here and not only in the browser.
export function signOut(pool, token) {
  return pool.query('delete from sessions where token_hash = $1', [sha256(token)]);
}

// removeOldSessions removes what has expired. Nobody is let in by it meanwhile.
export async function removeOldSessions(pool) {
  try {
    await pool.query('delete from sessions where expires_at <= now()');
  } catch (error) {
    console.error('removing old sessions failed, and is tried again in an hour:', error.message);
  }
}

// Passwords are kept as pbkdf2-sha256$ROUNDS$SALT$KEY, so that the rounds may grow while old hashes stay good.
const hashName = 'pbkdf2-sha256';
const hashRounds = 600_000; // what OWASP asks for
const unusableHash = `${hashName}$${hashRounds}$$`; // no password has it, and it takes as long to compare

const derive = promisify(pbkdf2); // in a thread of its own

const encode = (bytes) => bytes.toString('base64').replace(/=+$/, '');

export async function hashPassword(password) {
  const salt = randomBytes(16);
  return [hashName, hashRounds, encode(salt), encode(await derive(password, salt, hashRounds, 32, 'sha256'))].join('$');
}

export async function isPassword(hashed, password) {
  const [name, rounds, salt, key] = hashed.split('$');
  if (name !== hashName || key === undefined) return false;
  const want = Buffer.from(key, 'base64');
  const got = await derive(password, Buffer.from(salt, 'base64'), Number(rounds), 32, 'sha256');
  return want.length === got.length && timingSafeEqual(want, got);
}
