// Makes a replica set of one, once; ends with an error until the node is its primary.
try {
  rs.status();
} catch (error) {
  if (error.codeName !== "NotYetInitialized") throw error;
  rs.initiate({ _id: "rs0", members: [{ _id: 0, host: "127.0.0.1:27017" }] });
}
if (!db.hello().isWritablePrimary) quit(1);
