import { Rocket, RotateCw, Settings2 } from 'lucide-react';
import type { ReactNode } from 'react';
import { Link } from 'react-router';
import { useCoolifyConnection, type CoolifyConnection } from '@/api/coolify';
import { ApiError } from '@/api/errors';
import { Button } from '@/ui/button';
import { ErrorNote } from '@/ui/error-state';
import { Notice } from '@/ui/notice';
import { SkeletonRows } from '@/ui/skeleton';
import { isOfConnection } from './words';

const SETTINGS_AT = '/settings/coolify';

/** What is in it needs a connection to Coolify; else it is said how to come to one. */
export function WhenConnected({ children }: { children: ReactNode }) {
  const connection = useCoolifyConnection();
  if (connection.isPending) return <SkeletonRows rows={3} label="Looking for Coolify" />;
  if (connection.data === undefined) {
    return (
      <div className="flex flex-col items-start gap-2">
        <ErrorNote error={connection.error} className="w-full" />
        <Button
          size="sm"
          icon={RotateCw}
          busy={connection.isFetching}
          onClick={() => void connection.refetch()}
        >
          Retry
        </Button>
      </div>
    );
  }
  if (!connection.data.configured) return <NotConfigured />;
  return (
    <>
      <WhatIsMissing connection={connection.data} />
      {children}
    </>
  );
}

function NotConfigured() {
  return (
    <div className="flex flex-col items-center gap-3 rounded-lg border border-line px-4 py-8 text-center">
      <span className="flex size-10 items-center justify-center rounded-xl border border-line bg-surface text-fg-3 shadow-sm">
        <Rocket aria-hidden className="size-5" />
      </span>
      <p className="text-base font-semibold">Deployments are not set up</p>
      <p className="max-w-sm text-sm text-fg-2">
        Connect your Coolify once. Then what is pushed can be deployed from here, watched, and rolled back.
      </p>
      <Button asChild variant="primary">
        <Link to={SETTINGS_AT}>Connect Coolify</Link>
      </Button>
    </div>
  );
}

function WhatIsMissing({ connection }: { connection: CoolifyConnection }) {
  const { problem, source } = connection;
  if (problem === null) return null;
  return (
    <Notice className="mb-3">
      <p>{problem.message}</p>
      {source === 'user' && <WayToSettings />}
    </Notice>
  );
}

function WayToSettings() {
  return (
    <Link
      to={SETTINGS_AT}
      className="mt-1 inline-flex items-center gap-1.5 rounded-sm font-medium text-accent-fg hover:underline pointer-coarse:min-h-11"
    >
      <Settings2 aria-hidden className="size-3.5" />
      Coolify’s settings
    </Link>
  );
}

/** Why Coolify, or the server, said no, with the way to the settings where it is mended there. */
export function ConnectionError({ error, className }: { error: unknown; className?: string | undefined }) {
  return (
    <div className={className}>
      <ErrorNote error={error} className="w-full" />
      {error instanceof ApiError && isOfConnection(error.code) && <WayToSettings />}
    </div>
  );
}
