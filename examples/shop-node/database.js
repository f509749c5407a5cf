// transaction runs work in one transaction, which commits unless work throws.
export async function transaction(pool, work) {
  const tx = await pool.connect();
  let lost; // why the connection is of no use any more
  const lose = (error) => { lost = error; };
  tx.on('error', lose); // without a listener, a connection that breaks would end the process
  try {
    await tx.query('begin');
    const result = await work(tx);
    await tx.query('commit');
    return result;
  } catch (error) {
    await tx.query('rollback').catch(lose);
    throw error;
  } finally {
    tx.off('error', lose);
    tx.release(lost); // with a reason, it is closed instead of kept
  }
}
