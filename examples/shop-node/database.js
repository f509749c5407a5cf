// transaction runs work in one transaction, which commits unless work throws.
export async function transaction(pool, work) {
  const tx = await pool.connect();
  let broken;
  try {
    await tx.query('begin');
    const result = await work(tx);
    await tx.query('commit');
    return result;
  } catch (error) {
    await tx.query('rollback').catch((lost) => { broken = lost; });
    throw error;
  } finally {
    tx.release(broken); // a connection that cannot even roll back is closed
  }
}
