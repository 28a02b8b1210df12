// Writes artifacts/Settlement.json from what forge built: interface, bytecode, storage layout, compiler settings. With
// `--check` it compares instead. artifacts/Token.json is the token that tests deploy. Run `forge build` before.
import {readFileSync, writeFileSync} from "node:fs";

const read = (path) => JSON.parse(readFileSync(new URL(`../${path}`, import.meta.url), "utf8"));
const built = read("out/Settlement.sol/Settlement.json");
const executor = read("out/Executor.sol/Executor.json");
const packages = read("package.json").dependencies;

// Numbers of types in the compiler's tree change with every edit elsewhere.
const plain = (name) => name.replace(/\)\d+_/g, ")_");
const layout = {
  storage: built.storageLayout.storage.map(({label, offset, slot, type}) => ({label, offset, slot, type: plain(type)})),
  types: Object.fromEntries(
    Object.entries(built.storageLayout.types ?? {}).map(([name, type]) => [
      plain(name),
      {
        label: type.label, bytes: type.numberOfBytes,
        members: type.members?.map(({label, offset, slot, type: of}) => ({label, offset, slot, type: plain(of)})),
      },
    ]),
  ),
};
const {compiler, settings} = built.metadata;
const shown = {
  about: "The settlement contract as built by `cargo xtask contracts ethereum`; see docs/ethereum.md.",
  contract: "Settlement",
  compiler: {
    solc: compiler.version, evm: settings.evmVersion, optimizer: settings.optimizer, metadata: settings.metadata,
    openzeppelin: packages["@openzeppelin/contracts"],
  },
  abi: built.abi,
  bytecode: built.bytecode.object,
  deployedBytecode: built.deployedBytecode.object,
  // Where the constructor writes the rules: zeros above.
  immutables: Object.values(built.deployedBytecode.immutableReferences).flat().sort((a, b) => a.start - b.start),
  executorDeployedBytecode: executor.deployedBytecode.object,
  storageLayout: layout,
};
const token = read("out/Tokens.sol/Token.json");
const files = {
  Settlement: shown,
  Token: {about: "A token for tests, from test/Tokens.sol.", contract: "Token", abi: token.abi, bytecode: token.bytecode.object},
};
for (const [name, value] of Object.entries(files)) {
  const file = new URL(`../artifacts/${name}.json`, import.meta.url);
  const content = `${JSON.stringify(value, null, 1)}\n`;
  if (!process.argv.includes("--check")) writeFileSync(file, content);
  else if (readFileSync(file, "utf8") !== content) {
    throw new Error(`artifacts/${name}.json is not what these sources give: run \`cargo xtask contracts ethereum --record\``);
  }
}
