import type { AgentFields } from './agents';
import type { components } from './schema';

type Schemas = components['schemas'];

export type User = Schemas['UserView'];
export type Tokens = Schemas['TokensData'];
export type Environment = Schemas['EnvironmentView'];
export type SessionLine = Schemas['SessionLineView'] & AgentFields;
export type ListedEnvironment = Omit<Schemas['ListedEnvironment'], 'sessions'> & { sessions: SessionLine[] };
export type Session = Schemas['SessionView'] & AgentFields;
export type SessionState = Schemas['SessionStatus'];
export type SessionType = Schemas['SessionType'];
export type NewEnvironment = Schemas['NewEnvironment'];
export type NewSession = Schemas['NewSession'] & { prompt?: string | null };
export type SessionChanges = Schemas['SessionChanges'];
export type NameAnswer = Schemas['NameAnswer'];
export type NameAvailability = Schemas['NameAvailability'];
export type BranchAvailability = Schemas['BranchAvailability'];
export type Discarded = Schemas['DiscardedView'];
export type Kept = Schemas['craftastic__sessions__endpoints__KeptView'];
export type Login = Schemas['Login'];
export type Registration = Schemas['Registration'];
export type Invitation = Schemas['InvitationData'];
export type DeletedEnvironment = Schemas['craftastic__environments__endpoints__DeletedAnswer'];
export type DeletedSession = Schemas['craftastic__sessions__endpoints__DeletedAnswer'];

/** The values of `status` and `cloneStatus`, which the description of the API leaves open. */
export type EnvironmentStatus = 'starting' | 'running' | 'stopped' | 'error';
export type CloneStatus = 'none' | 'pending' | 'cloning' | 'ready' | 'failed';
