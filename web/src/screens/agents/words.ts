import type { Agent, AgentType, CredentialKind } from '@/api/agents';
import { formatBytes } from '@/app/bytes';

/** A login file is small; more than this is another file. In bytes. */
export const MAX_FILE = 256 << 10;
const MAX_NAME = 255;

/** The type that an agent is of; undefined where the server has it no more. Pure. */
export function typeOf(agent: Pick<Agent, 'type'>, types: readonly AgentType[]): AgentType | undefined {
  return types.find((one) => one.name === agent.type);
}

/** The kind of an agent's credential; undefined where it has none, or one of a kind that is unknown. Pure. */
export function kindOf(
  agent: Pick<Agent, 'type' | 'credential_type'>,
  types: readonly AgentType[],
): CredentialKind | undefined {
  const { credential_type: type } = agent;
  if (type === undefined || type === null) return undefined;
  return typeOf(agent, types)?.credentials.find((one) => one.type === type || one.aliases.includes(type));
}

/** Whether a credential is in the sandbox while a session runs. Pure. */
export function enters(kind: Pick<CredentialKind, 'entersSandbox'> | undefined): boolean {
  return kind?.entersSandbox === true;
}

/** Whether the server can install what a type runs: of what it installs it names the version. Pure. */
export function isInstallable({ installable, version }: Pick<AgentType, 'installable' | 'version'>): boolean {
  return installable ?? version !== null;
}

/** What is plainly wrong with an agent's name. Pure. */
export function agentNameProblem(name: string): string | undefined {
  if (name.trim() === '') return 'Give it a name.';
  return Array.from(name.trim()).length > MAX_NAME ? `A name has at most ${MAX_NAME} characters.` : undefined;
}

/** What is plainly wrong with a credential, before it is sent. Pure. */
export function credentialProblem(value: string, kind: Pick<CredentialKind, 'delivery'>): string | undefined {
  if (value.trim() === '') return kind.delivery === 'file' ? 'Choose the file.' : 'Give its value.';
  if (kind.delivery !== 'file') {
    return /\s/u.test(value.trim()) ? 'A key has no spaces or line breaks in it.' : undefined;
  }
  const size = new TextEncoder().encode(value).length;
  return size > MAX_FILE ? `This is ${formatBytes(size)}; a login file is much smaller.` : undefined;
}

/** A value as it is sent: a key without what was pasted round it, a file as it is. Pure. */
export function credentialValue(value: string, kind: Pick<CredentialKind, 'delivery'>): string {
  return kind.delivery === 'file' ? value : value.trim();
}

/** What is plainly wrong with the address of a model's API. Pure. */
export function baseUrlProblem(text: string): string | undefined {
  if (text.trim() === '') return undefined;
  try {
    const { protocol, username, password, search, hash } = new URL(text.trim());
    if (protocol !== 'https:' && protocol !== 'http:') return 'An address begins with https://.';
    if (username !== '' || password !== '') return 'Leave the user name and password out.';
    return search === '' && hash === '' ? undefined : 'Leave out what follows a ? or a #.';
  } catch {
    return 'An address looks like https://models.example.com/v1.';
  }
}
